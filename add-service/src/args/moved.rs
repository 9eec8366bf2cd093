//! Flags of earlier versions, whose settings are fields of the file of `--trim-config` now.

use bootstrap::args::Moved;

/// The flags, and the fields in place of them. Their variables were named after them.
pub(crate) const MOVED: Moved = Moved {
    file: "--trim-config",
    prefix: "ADD",
    fields: &FIELDS,
};

const FIELDS: [(&str, &str); 38] = [
    ("--passing-only", "discovery.passingOnly"),
    ("--datacenter", "discovery.datacenters"),
    ("--removal-protection", "discovery.removalProtection.limit"),
    (
        "--removal-protection-share",
        "discovery.removalProtection.share",
    ),
    ("--subset", "discovery.subset"),
    ("--subset-id", "discovery.subsetId"),
    ("--near-datacenter", "discovery.locality.datacenter"),
    (
        "--overprovisioning-factor",
        "discovery.locality.overprovisioningFactor",
    ),
    ("--key-header", "discovery.requestHashHeader"),
    (
        "--attempt-timeout",
        "methodConfig[].discovery.attemptTimeout",
    ),
    ("--retry-codes", "methodConfig[].discovery.retryCodes"),
    (
        "--retry-idempotent-codes",
        "methodConfig[].discovery.idempotentCodes",
    ),
    ("--retry-backoff", "methodConfig[].discovery.initialBackoff"),
    ("--retry-backoff-max", "methodConfig[].discovery.maxBackoff"),
    ("--replay-limit", "methodConfig[].discovery.replayLimit"),
    ("--hedge", "methodConfig[].discovery.hedge"),
    ("--retry-budget", "discovery.retryBudget.share"),
    ("--retry-reserve", "discovery.retryBudget.reserve"),
    ("--eject", "discovery.ejection.enabled"),
    (
        "--eject-after-broken",
        "discovery.ejection.consecutiveTransport",
    ),
    (
        "--eject-after-errors",
        "discovery.ejection.consecutiveStatus",
    ),
    (
        "--eject-after-overtaken",
        "discovery.ejection.consecutiveOvertaken",
    ),
    ("--eject-window", "discovery.ejection.window"),
    ("--eject-min-calls", "discovery.ejection.minCalls"),
    ("--eject-share", "discovery.ejection.failingShare"),
    (
        "--eject-deviations",
        "discovery.ejection.successRateDeviations",
    ),
    ("--eject-time", "discovery.ejection.baseTime"),
    ("--eject-time-max", "discovery.ejection.maxTime"),
    ("--eject-max", "discovery.ejection.maxShare"),
    ("--slow-start", "discovery.ejection.slowStart"),
    ("--eager", "discovery.connections.eager"),
    ("--connect-timeout", "discovery.connections.timeout"),
    ("--connect-backoff", "discovery.connections.initialBackoff"),
    ("--connect-backoff-max", "discovery.connections.maxBackoff"),
    ("--connect-parallel", "discovery.connections.parallel"),
    ("--keepalive", "discovery.connections.keepAlive"),
    (
        "--keepalive-timeout",
        "discovery.connections.keepAliveTimeout",
    ),
    ("--tcp-keepalive", "discovery.connections.tcpKeepAlive"),
];

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use serde_json::Value;

    use super::*;
    use crate::args::Args;

    #[test]
    fn no_moved_flag_is_a_flag_still() {
        for argument in Args::command().get_arguments() {
            let flag = format!("--{}", argument.get_long().unwrap_or_default());
            assert!(FIELDS.iter().all(|(moved, _)| *moved != flag), "{flag}");
        }
    }

    #[tokio::test]
    async fn each_flag_has_a_field_in_the_printed_policy() {
        let args = Args::try_parse_from(["add-service"]).unwrap();
        let policy: Value = serde_json::from_str(&args.effective_config().unwrap()).unwrap();
        for (flag, field) in FIELDS {
            // Null as a whole where there is no locality.
            if field.starts_with("discovery.locality.") {
                assert!(
                    policy["discovery"]
                        .as_object()
                        .unwrap()
                        .contains_key("locality")
                );
                continue;
            }
            let pointer = format!("/{}", field.replace("[].", ".0.").replace('.', "/"));
            assert!(
                policy.pointer(&pointer).is_some(),
                "{flag}: {field}: {policy:#}"
            );
        }
    }
}
