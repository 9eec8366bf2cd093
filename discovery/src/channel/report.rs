//! The policy in effect, written as a service config.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use super::method_policy::{MethodPolicy, Policies};
use crate::{
    balance::Policy,
    code::Code,
    config::{MAX_ATTEMPTS, Name, OWN_KEY, RouteConfig},
    endpointer::{RemovalProtection, SetPolicy},
    filter::{subset::Subset, zone::Locality},
    limit::ConcurrencyLimit,
    retry::{Hedge, throttle::LimitPolicy},
};

/// The settings in effect.
pub(super) struct Report<'a> {
    pub(super) policies: &'a Policies,
    pub(super) set: &'a SetPolicy,
    pub(super) limit: LimitPolicy,
    pub(super) routes: &'a [RouteConfig],
}

impl Report<'_> {
    /// The document, indented.
    pub(super) fn to_json(&self) -> String {
        let [methods, services] = self.policies.named();
        let methods = methods
            .into_iter()
            .map(|(path, policy)| method_config(&name(&Name::Method(path.to_owned())), policy));
        let services = services
            .into_iter()
            .map(|(path, policy)| method_config(&name(&Name::Service(path.to_owned())), policy));
        let all = method_config(&name(&Name::All), self.policies.default_policy());
        let mut document = json!({
            "methodConfig": methods.chain(services).chain([all]).collect::<Vec<_>>(),
            OWN_KEY: self.own(),
        });
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

    fn own(&self) -> Value {
        let ejection = &self.set.ejection;
        let mut own = json!({
            "balancer": self.set.balancer_name.map(Policy::name),
            "subset": self.set.subset.as_ref().map(Subset::size),
            "locality": self.set.locality.as_ref().map(locality),
            "routes": self.routes.iter().map(route).collect::<Vec<_>>(),
            "concurrencyLimit": concurrency(&self.set.concurrency),
            "removalProtection": protection(&self.set.protection),
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

fn method_config(name: &Value, policy: &MethodPolicy) -> Value {
    let retry = &policy.retry;
    let mut config = json!({
        "name": [name],
        "timeout": retry.timeout.map(seconds),
        "waitForReady": policy.wait_for_ready,
        "maxRequestMessageBytes": policy.max_request,
        "maxResponseMessageBytes": policy.max_response,
        OWN_KEY: {
            "idempotent": policy.idempotent,
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
            "idempotentCodes": codes(&retry.idempotent_codes),
            "retryElsewhereAtOnce": retry.elsewhere_at_once,
            "replayLimit": retry.replay_limit,
        },
    });
    let attempts = retry.max_attempts.clamp(2, MAX_ATTEMPTS);
    if let Some(Hedge::Each(delay)) = retry.hedge {
        config["hedgingPolicy"] = json!({
            "maxAttempts": attempts,
            "hedgingDelay": seconds(delay),
            "nonFatalStatusCodes": codes(&retry.codes),
        });
    } else if !retry.codes.is_empty() {
        config["retryPolicy"] = json!({
            "maxAttempts": attempts,
            "initialBackoff": seconds(retry.backoff.first),
            "maxBackoff": seconds(retry.backoff.ceiling),
            "backoffMultiplier": retry.backoff.multiplier,
            "retryableStatusCodes": codes(&retry.codes),
        });
    }
    config
}

fn name(name: &Name) -> Value {
    match name {
        Name::All => json!({}),
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
