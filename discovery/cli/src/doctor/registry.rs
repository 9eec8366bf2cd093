//! The steps about the registry: it is reachable, accepts the credentials, and is of the URL's kind.

use std::{sync::Arc, time::Duration};

use discovery::{
    chain,
    registry::{InstanceSet, Registry, RegistryError, RegistryUrl},
};
use tokio::time::Instant;

use super::{
    Finding, StepContext, certificate,
    sniff::{ProbeResult, sniff},
    wire::Wire,
};
use crate::target::{Filters, NoAnswer, first_answer};

const STEP: &str = "registry";

/// The finding about a URL that cannot be opened.
pub(super) fn not_opened(error: &RegistryError) -> Finding {
    let remedy = "correct the URL or the environment variable that the message names";
    Finding::broken(STEP, "invalid_settings", chain(error), remedy)
}

/// Asks the registry for the service's instances. `None` without an answer.
pub(super) async fn examine(
    context: &StepContext<'_>,
    registry: &dyn Registry,
) -> (Option<InstanceSet>, Vec<Finding>) {
    let begun = Instant::now();
    // The tags are applied afterwards: the instances that they leave out are reported.
    let everything = Filters {
        tags: Vec::new(),
        ..context.args.filters.clone()
    };
    let query = everything.query(&context.args.target, true);
    let error = match first_answer(registry, &query, context.args.timeout).await {
        Ok(set) => {
            let took = begun.elapsed();
            let name = registry.name();
            let message = format!("{name} answered in {took:.1?}");
            return (Some(set), vec![Finding::ok(STEP, message)]);
        }
        Err(error) => error,
    };
    (None, explain(context, registry.name(), &error).await)
}

/// Looks for the cause of a missing answer.
async fn explain(context: &StepContext<'_>, name: &str, error: &NoAnswer) -> Vec<Finding> {
    let url = RegistryUrl::parse(name).ok();
    let wire = url.as_ref().and_then(|url| Wire::of(url.scheme()));
    let message = match error {
        NoAnswer::Failed(error) => chain(&**error),
        NoAnswer::Late { .. } => error.to_string(),
    };
    let cause = match error {
        NoAnswer::Failed(error) => &**error,
        NoAnswer::Late { .. } => return unreached(context, url, wire, None, &message).await,
    };
    match cause {
        RegistryError::Denied { .. } => {
            let remedy = wire.map_or("check the credentials", |wire| wire.credentials);
            vec![Finding::broken(STEP, "denied", message, remedy)]
        }
        RegistryError::InvalidSetting { .. } | RegistryError::InvalidUrl { .. } => {
            vec![not_opened(cause)]
        }
        RegistryError::Unsupported { .. } => vec![Finding::broken(
            STEP,
            "unsupported",
            message,
            "leave out the filter that this registry does not have",
        )],
        _ => unreached(context, url, wire, Some(cause), &message).await,
    }
}

/// The findings about each server of a registry that gave no usable answer.
async fn unreached(
    context: &StepContext<'_>,
    url: Option<RegistryUrl>,
    wire: Option<Wire>,
    error: Option<&RegistryError>,
    message: &str,
) -> Vec<Finding> {
    let scheme = url.as_ref().map(|url| url.scheme().to_owned());
    let hosts = url
        .zip(wire)
        .and_then(|(url, wire)| Some((url.hosts(wire.port).ok()?, wire)));
    let Some((hosts, wire)) = hosts.filter(|(hosts, _)| !hosts.is_empty()) else {
        let remedy = match scheme.as_deref() {
            Some("dns" | "dns+a") => {
                "check the address of the name server in the URL, and its answer with `dig @SERVER NAME SRV`"
            }
            _ => "check that the registry is there, and that this user may read it and write to it",
        };
        return vec![Finding::broken(STEP, "no_answer", message, remedy)];
    };
    let limit = context.args.timeout;
    let mut findings = Vec::new();
    for host in hosts {
        let found = sniff(&host, limit).await;
        let finding = certificate_of(error, wire, &found)
            .and_then(|error| certificate::refused(STEP, &error, &found, context.skew))
            .unwrap_or_else(|| server(&host, wire, &found, message, limit));
        findings.push(finding);
    }
    findings
}

/// The reason for a failed TLS handshake, if both the server and the URL use TLS.
fn certificate_of(
    error: Option<&RegistryError>,
    wire: Wire,
    found: &ProbeResult,
) -> Option<Arc<rustls::Error>> {
    let is_tls = wire.is_tls && matches!(found, ProbeResult::Tls { .. });
    error
        .filter(|_| is_tls)
        .and_then(|error| certificate::cause(error))
}

/// The finding about one server.
fn server(host: &str, wire: Wire, found: &ProbeResult, message: &str, limit: Duration) -> Finding {
    let Wire {
        product,
        port,
        other,
        ..
    } = wire;
    let correct =
        format!("correct the host and the port in the URL ({product}'s default is {port})");
    match found {
        ProbeResult::Refused => Finding::broken(
            STEP,
            "registry_down",
            format!("nothing listens at {host} (connection refused)"),
            format!("start {product} there, or {correct}"),
        ),
        ProbeResult::NoSuchHost(error) => Finding::broken(
            STEP,
            "no_such_host",
            format!("{host}: the name has no address ({error})"),
            "correct the host in the URL, or the name servers of this machine",
        ),
        ProbeResult::Unreachable(error) => Finding::broken(
            STEP,
            "registry_unreachable",
            format!("no connection to {host}: {error}"),
            format!("check the route and the firewalls from here to {host}, and the address"),
        ),
        ProbeResult::Tls { .. } if !wire.is_tls => Finding::broken(
            STEP,
            "registry_needs_tls",
            format!(
                "{host} is {}, and the URL asks for no TLS",
                found.describe()
            ),
            format!("use {other}://, or name the port without TLS"),
        ),
        ProbeResult::Http1 { .. } | ProbeResult::Http2
            if wire.is_tls && wire.without_tls().fits(found) =>
        {
            Finding::broken(
                STEP,
                "registry_has_no_tls",
                format!("{host} is {}, and the URL asks for TLS", found.describe()),
                format!("use {other}://, or name the port with TLS"),
            )
        }
        found if wire.fits(found) => Finding::broken(
            STEP,
            "registry_fails",
            format!("{message} ({host} accepts connections)"),
            format!(
                "check that {host} is {product}, with its path, and its own log; raise --timeout \
                 (now {limit:?}) if it is slow"
            ),
        ),
        found => Finding::broken(
            STEP,
            "wrong_port",
            format!("{host} is not {product}: there is {}", found.describe()),
            correct,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(scheme: &str, found: &ProbeResult) -> &'static str {
        let wire = Wire::of(scheme).unwrap();
        server("h:1", wire, found, "message", Duration::from_secs(1)).cause
    }

    #[test]
    fn what_speaks_at_the_address_is_the_cause() {
        let http1 = || ProbeResult::Http1 { date: None };
        let tls = || ProbeResult::Tls {
            alpn: None,
            certificate: None,
        };
        for (scheme, found, expected) in [
            ("consul", ProbeResult::Refused, "registry_down"),
            ("consul", tls(), "registry_needs_tls"),
            ("consuls", http1(), "registry_has_no_tls"),
            ("consuls", ProbeResult::Http2, "wrong_port"),
            ("consul", ProbeResult::Http2, "wrong_port"),
            ("consul", ProbeResult::Silent, "wrong_port"),
            ("consul", http1(), "registry_fails"),
            ("etcd", http1(), "wrong_port"),
            ("etcds", ProbeResult::Http2, "registry_has_no_tls"),
            ("etcd", ProbeResult::Http2, "registry_fails"),
            ("zookeeper", http1(), "wrong_port"),
            ("zookeeper", ProbeResult::Silent, "registry_fails"),
            (
                "eureka",
                ProbeResult::NoSuchHost(String::new()),
                "no_such_host",
            ),
        ] {
            assert_eq!(cause(scheme, &found), expected, "{scheme} {found:?}");
        }
        assert!(Wire::of("dns").is_none() && Wire::of("static").is_none());
    }
}
