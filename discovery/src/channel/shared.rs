//! The state that all calls of a channel share.

use std::{collections::HashSet, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::Instant;

use super::settings::ChannelSettings;
use crate::{
    ejection::EjectionPolicy,
    endpointer::Endpointer,
    metrics::ServiceMetrics,
    retry::{
        Hedge, RetryPolicy,
        budget::Budget,
        latency::Latencies,
        usual::{MethodSlot, UsualLatency},
    },
};

pub(crate) struct Shared {
    pub(crate) service: String,
    /// The registry's name, for messages.
    pub(crate) registry: String,
    pub(crate) endpointer: Endpointer,
    pub(crate) policy: RetryPolicy,
    /// The other settings, to show.
    pub(crate) settings: Arc<ChannelSettings>,
    /// Paths of the methods whose request or response is declared to be a stream.
    pub(crate) streaming: HashSet<String>,
    pub(crate) ejection: Arc<EjectionPolicy>,
    pub(crate) budget: Budget,
    pub(crate) latencies: Latencies,
    pub(crate) usual: UsualLatency,
    pub(crate) counters: Arc<ServiceMetrics>,
    pub(crate) user_agent: HeaderValue,
}

impl Shared {
    /// Notes the latency of one attempt.
    pub(super) fn observe(
        &self,
        method: MethodSlot,
        elapsed: Duration,
        now: Instant,
        failed: bool,
    ) {
        self.counters.observe(elapsed);
        if failed {
            return;
        }
        self.usual.add(method, elapsed);
        if self.policy.hedge == Some(Hedge::Percentile95) {
            self.latencies.add(elapsed, now);
        }
    }

    /// The delay before a hedged attempt, if the policy has one now.
    pub(super) fn hedge_delay(&self) -> Option<Duration> {
        match self.policy.hedge? {
            Hedge::After(delay) => Some(delay),
            Hedge::Percentile95 => self.latencies.percentile_95(),
        }
    }
}
