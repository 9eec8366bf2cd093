//! Everything that a channel knows at one moment: its status, its instances, its counters and the
//! policy in effect.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    fixed_settings::ChannelSettings,
    method_policy::Policies,
    shared::Shared,
    status::{ChannelStatus, EndpointStatus},
};
#[cfg(feature = "orca")]
use crate::orca::LoadReports;
use crate::{
    ejection::EjectionPolicy,
    endpointer::RemovalProtection,
    metrics::ServiceMetrics,
    retry::{Hedge, RetryPolicy},
    warm_up::WarmUp,
};

/// Everything that a channel knows at one moment.
///
/// With the feature `serde` it can be serialized, for example as JSON. Every time in it is then a number
/// of seconds, and every error a text. The names of the fields are stable; fields may be added.
///
/// Its cost grows with the number of instances. Calls do not wait for it, and cost no more for it.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChannelSnapshot {
    /// The service's name in the registry.
    pub service: String,
    /// The registry's URL without credentials.
    pub registry: String,
    /// The state of the channel and of the registry.
    pub status: ChannelStatus,
    /// The known instances, sorted by ID.
    pub endpoints: Vec<EndpointStatus>,
    /// The calls so far.
    pub calls: CallTotals,
    /// The retries that the retry budget allows now.
    pub retry_tokens: u32,
    /// The delay before a hedged attempt, if it is a fixed one.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_seconds")
    )]
    pub hedge_delay: Option<Duration>,
    /// The policy in effect.
    pub policy: ChannelPolicy,
}

/// Numbers of calls and attempts, by all channels of the process to the service, since the first of
/// them was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CallTotals {
    /// Calls that ended with an answer of a server.
    pub ok: u64,
    /// Calls that ended with an error of the channel.
    pub failed: u64,
    /// Attempts that gave a response.
    pub attempts_ok: u64,
    /// Attempts that ended with another status than OK.
    pub attempts_status: u64,
    /// Attempts whose connection was lost after the request was sent.
    pub attempts_broken: u64,
    /// Attempts without an answer in time.
    pub attempts_timeout: u64,
    /// Attempts that no server began to process.
    pub attempts_unprocessed: u64,
    /// Attempts made after an earlier one failed.
    pub retries: u64,
    /// Retries not made because the retry budget was empty.
    pub retries_denied: u64,
    /// Attempts made because an earlier one was slow.
    pub hedges: u64,
    /// Calls that failed because every instance was at its concurrency limit.
    pub limited: u64,
}

/// The policy of a channel, for methods without one of their own.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChannelPolicy {
    /// Retries and hedges.
    pub retry: RetryPolicy,
    /// Outlier ejection.
    pub ejection: EjectionPolicy,
    /// Removal protection. Its limit is zero where the registry's removals are certain.
    pub protection: RemovalProtection,
    /// The warm-up of instances that join.
    pub warm_up: WarmUp,
    /// The load reports that weighted round robin reads.
    #[cfg(feature = "orca")]
    pub load_reports: LoadReports,
    /// The selection of instances, and their connections.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub settings: ChannelSettings,
}

impl CallTotals {
    fn of(metrics: &ServiceMetrics) -> Self {
        Self {
            ok: metrics.calls_ok.get(),
            failed: metrics.calls_failed.get(),
            attempts_ok: metrics.ok.get(),
            attempts_status: metrics.status.get(),
            attempts_broken: metrics.broken.get(),
            attempts_timeout: metrics.timeout.get(),
            attempts_unprocessed: metrics.unprocessed.get(),
            retries: metrics.retries.get(),
            retries_denied: metrics.denied.get(),
            hedges: metrics.hedges.get(),
            limited: metrics.limited.get(),
        }
    }
}

impl ChannelSnapshot {
    pub(super) fn of(shared: &Shared) -> Self {
        let policies = shared.policies.load();
        let default = policies.default_policy();
        let policy = ChannelPolicy::of(shared, &policies);
        Self {
            service: shared.service.clone(),
            registry: shared.registry.clone(),
            status: shared.endpointer.status(ChannelStatus::of),
            endpoints: EndpointStatus::all(&shared.endpointer),
            calls: CallTotals::of(&shared.counters),
            retry_tokens: default.limit.tokens(Instant::now()),
            hedge_delay: match policy.retry.hedge {
                Some(Hedge::After(delay) | Hedge::Each(delay)) => Some(delay),
                Some(Hedge::Percentile95) | None => None,
            },
            policy,
        }
    }
}

impl ChannelPolicy {
    fn of(shared: &Shared, policies: &Policies) -> Self {
        let mut retry = policies.default_policy().retry.clone();
        let [methods, _services] = policies.named();
        let idempotent = methods
            .into_iter()
            .filter(|(_, policy)| policy.idempotent == Some(true));
        retry.idempotent = idempotent.map(|(path, _)| path.to_owned()).collect();
        let set = shared.endpointer.policy_in_effect();
        Self {
            retry,
            ejection: (*set.ejection).clone(),
            protection: set.protection,
            warm_up: set.warm_up,
            #[cfg(feature = "orca")]
            load_reports: set.load_reports,
            settings: shared.fixed.with(&set),
        }
    }
}
