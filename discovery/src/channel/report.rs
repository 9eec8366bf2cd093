//! The policy in effect, written as a service config.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderName;
use serde_json::{Map, Value, json};

use super::{
    fixed_settings::FixedSettings,
    method_policy::{MethodPolicy, Policies},
};
#[cfg(feature = "orca")]
use crate::orca::LoadReports;
use crate::{
    balance::Policy,
    code::Code,
    config::{Dialect, KEEP_ALIVE_TIMEOUT, MAX_ATTEMPTS, Name, OWN_KEY, RouteConfig},
    endpointer::{RemovalProtection, SetPolicy},
    filter::{subset::Subset, zone::Locality},
    limit::ConcurrencyLimit,
    retry::{Hedge, throttle::LimitPolicy},
};

/// The settings in effect.
pub(super) struct Report<'a> {
    pub(super) policies: &'a Policies,
    pub(super) set: &'a SetPolicy,
    pub(super) fixed: &'a FixedSettings,
    pub(super) limit: LimitPolicy,
    pub(super) routes: &'a [RouteConfig],
    pub(super) dialect: Dialect,
    pub(super) subset_id: Option<&'a str>,
}

impl Report<'_> {
    /// The document, indented.
    pub(super) fn to_json(&self) -> String {
        let [methods, services] = self.policies.named();
        let paths = self.policies.paths().iter();
        let entries = methods
            .into_iter()
            .map(|(path, policy)| (Name::Method(path.to_owned()), policy))
            .chain(
                services
                    .into_iter()
                    .map(|(path, policy)| (Name::Service(path.to_owned()), policy)),
            )
            .chain(paths.map(|(path, policy)| (Name::Path(path.clone()), &**policy)))
            .chain([(Name::All, &**self.policies.default_policy())])
            .map(|(name, policy)| self.method_config(&name, policy));
        let mut document = json!({
            "methodConfig": entries.collect::<Vec<_>>(),
            OWN_KEY: self.own(),
        });
        #[cfg(feature = "orca")]
        if self.set.balancer_name == Some(Policy::WeightedRoundRobin) {
            document["loadBalancingConfig"] = load_balancing(&self.set.load_reports);
        }
        if let Some(service) = self.set.health.as_deref() {
            document["healthCheckConfig"] = json!({"serviceName": service});
        }
        if let LimitPolicy::Throttle(policy) = self.limit {
            document["retryThrottling"] = json!({
                "maxTokens": policy.max_tokens,
                "tokenRatio": policy.token_ratio,
            });
        }
        format!("{document:#}")
    }

    /// The policy of these methods as an entry of `methodConfig`.
    fn method_config(&self, method: &Name, policy: &MethodPolicy) -> Value {
        let retry = &policy.retry;
        // Fields that plain HTTP does not have are null, like those that are not set.
        let is_grpc = self.dialect == Dialect::Grpc;
        let codes = |list| is_grpc.then(|| codes(list));
        let mut config = json!({
            "name": [name(method)],
            "timeout": retry.timeout.map(seconds),
            "waitForReady": policy.wait_for_ready,
            "maxRequestMessageBytes": policy.max_request,
            "maxResponseMessageBytes": policy.max_response,
            OWN_KEY: {
                "idempotent": policy.idempotent.or(is_grpc.then_some(false)),
                "maxAttempts": retry.max_attempts,
                "attemptTimeout": retry.attempt_timeout.map(seconds),
                "learnAttemptTimeout": retry.learn_attempt_timeout,
                "hedge": match retry.hedge {
                    None => Some("off".to_owned()),
                    Some(Hedge::Percentile95) => Some("p95".to_owned()),
                    Some(Hedge::After(delay)) => Some(seconds(delay)),
                    // Said by the hedging policy.
                    Some(Hedge::Each(_)) => None,
                },
                "retryCodes": codes(&retry.codes),
                "idempotentCodes": codes(&retry.idempotent_codes),
                "initialBackoff": seconds(retry.backoff.first),
                "maxBackoff": seconds(retry.backoff.ceiling),
                "backoffMultiplier": retry.backoff.multiplier,
                "retryElsewhereAtOnce": retry.elsewhere_at_once,
                "replayLimit": retry.replay_limit,
            },
        });
        if let Some(Hedge::Each(delay)) = retry.hedge {
            config["hedgingPolicy"] = json!({
                "maxAttempts": retry.max_attempts.clamp(2, MAX_ATTEMPTS),
                "hedgingDelay": seconds(delay),
                "nonFatalStatusCodes": codes(&retry.codes),
            });
        }
        config
    }

    fn own(&self) -> Value {
        let ejection = &self.set.ejection;
        let mut own = json!({
            "balancer": self.set.balancer_name.map(Policy::name),
            "requestHashHeader": self.policies.hash_header.as_ref().map(HeaderName::as_str),
            "passingOnly": self.fixed.passing_only,
            "datacenters": self.fixed.datacenter.as_ref().map(|names| {
                names.split(',').collect::<Vec<_>>()
            }),
            "connections": connections(self.fixed),
            "subset": self.set.subset.as_ref().map(Subset::size),
            "subsetId": self.subset_id,
            "locality": self.set.locality.as_ref().map(locality),
            "routes": self.routes.iter().map(route).collect::<Vec<_>>(),
            "concurrencyLimit": concurrency(&self.set.concurrency),
            "removalProtection": protection(&self.set.protection),
            "warmUp": {
                "window": seconds(self.set.warm_up.window),
                "aggression": self.set.warm_up.aggression,
                "minShare": self.set.warm_up.min_share,
            },
            "ejection": {
                "enabled": ejection.enabled,
                "consecutiveTransport": ejection.consecutive_transport,
                "consecutiveStatus": ejection.consecutive_status,
                "consecutiveOvertaken": ejection.consecutive_overtaken,
                "window": seconds(ejection.window),
                "minCalls": ejection.min_calls,
                "failingShare": ejection.failing_share,
                "failingShareInstances": ejection.failing_share_instances,
                "successRateDeviations": ejection.success_rate_deviations,
                "successRateInstances": ejection.success_rate_instances,
                "successRateCalls": ejection.success_rate_calls,
                "baseTime": seconds(ejection.base_time),
                "maxTime": seconds(ejection.max_time),
                "maxShare": ejection.max_share,
                "slowStart": seconds(ejection.slow_start),
            },
        });
        if let LimitPolicy::Budget(budget) = self.limit {
            own["retryBudget"] = json!({"share": budget.share, "reserve": budget.reserve});
        }
        own
    }
}

/// The load reports that weighted round robin reads.
#[cfg(feature = "orca")]
fn load_balancing(reports: &LoadReports) -> Value {
    let mut fields = json!({
        "enableOobLoadReport": reports.out_of_band.is_some(),
        "blackoutPeriod": seconds(reports.blackout),
        "weightExpirationPeriod": seconds(reports.expiration),
        "weightUpdatePeriod": seconds(reports.update_period),
        "errorUtilizationPenalty": reports.error_penalty,
    });
    if let Some(period) = reports.out_of_band {
        fields["oobReportingPeriod"] = json!(seconds(period));
    }
    json!([{"weighted_round_robin": fields}])
}

fn name(name: &Name) -> Value {
    match name {
        Name::All => json!({}),
        Name::Path(path) => {
            let mut name = json!({"path": path.path()});
            if let Some(method) = path.method() {
                name["method"] = json!(method);
            }
            name
        }
        Name::Service(path) => json!({"service": path.trim_start_matches('/')}),
        Name::Method(path) => {
            let (service, method) = path.rsplit_once('/').unwrap_or((path, ""));
            json!({"service": service.trim_start_matches('/'), "method": method})
        }
    }
}

fn route(route: &RouteConfig) -> Value {
    let metadata = route.metadata.iter().map(|(key, value)| {
        let value = value.as_ref().and_then(|value| value.to_str().ok());
        (key.to_string(), json!(value))
    });
    let split = route.split.iter().map(|part| {
        json!({
            "weight": part.weight,
            "tags": part.tags,
            "metadata": part.metadata.iter().cloned().collect::<BTreeMap<_, _>>(),
            "id": part.id,
            "fallback": part.fallback,
        })
    });
    json!({
        "name": route.names.iter().map(name).collect::<Vec<_>>(),
        "metadata": metadata.collect::<Map<_, _>>(),
        "split": split.collect::<Vec<_>>(),
    })
}

fn concurrency(limit: &ConcurrencyLimit) -> Value {
    match limit {
        ConcurrencyLimit::Off => json!("off"),
        ConcurrencyLimit::Fixed(limit) => json!(limit),
        ConcurrencyLimit::Learnt(settings) => json!({
            "initial": settings.initial,
            "min": settings.min,
            "max": settings.max,
            "tolerance": settings.tolerance,
        }),
    }
}

fn protection(protection: &RemovalProtection) -> Value {
    let limit = protection.limit.map_or_else(|| "none".to_owned(), seconds);
    json!({"share": protection.share, "limit": limit})
}

fn connections(fixed: &FixedSettings) -> Value {
    let mut connections = json!({
        "eager": fixed.eager,
        "timeout": seconds(fixed.connect_timeout),
        "initialBackoff": seconds(fixed.connect_backoff.first),
        "maxBackoff": seconds(fixed.connect_backoff.ceiling),
        "parallel": fixed.connect_parallel,
    });
    if let Some(probes) = fixed.probes {
        let (interval, limit) = probes.keep_alive.unzip();
        connections["keepAlive"] = json!(seconds(interval.unwrap_or_default()));
        connections["keepAliveTimeout"] = json!(seconds(limit.unwrap_or(KEEP_ALIVE_TIMEOUT)));
        connections["tcpKeepAlive"] = json!(seconds(probes.tcp_keep_alive.unwrap_or_default()));
    }
    connections
}

fn locality(locality: &Locality) -> Value {
    let mut fields = Map::new();
    fields.insert("zone".to_owned(), json!(locality.zone));
    fields.insert("datacenter".to_owned(), json!(locality.datacenter));
    let factor = locality.overprovisioning_factor;
    // An infinite one cannot be written: it is that of several datacenters without a preference.
    if factor.is_finite() {
        fields.insert("overprovisioningFactor".to_owned(), json!(factor));
    }
    let order = &locality.fallback_datacenters;
    fields.insert("fallbackDatacenters".to_owned(), json!(order));
    fields.into()
}

fn codes(codes: &[Code]) -> Vec<&'static str> {
    codes.iter().map(|code| code.name()).collect()
}

/// A duration in protobuf's JSON mapping.
fn seconds(duration: Duration) -> String {
    let (whole, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if nanos == 0 {
        return format!("{whole}s");
    }
    let fraction = format!("{nanos:09}");
    format!("{whole}.{}s", fraction.trim_end_matches('0'))
}
