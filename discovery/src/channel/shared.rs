//! The state that all calls of a channel share.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::{sync::Notify, time::Instant};

use super::{
    fixed_settings::FixedSettings, method_policy::Policies, settings::Settings, trace::Propagate,
};
use crate::{
    endpointer::Endpointer,
    metrics::{ServiceMetrics, Target},
    retry::{
        Hedge,
        learnt::LearntTimes,
        usual::{MethodSlot, UsualLatency},
    },
};

pub(crate) struct Shared {
    pub(crate) service: String,
    /// The registry's name, for messages.
    pub(crate) registry: String,
    pub(crate) endpointer: Endpointer,
    pub(crate) policies: ArcSwap<Policies>,
    #[cfg_attr(
        not(feature = "service-config"),
        allow(dead_code, reason = "for a replacement")
    )]
    pub(crate) settings: Settings,
    /// The settings that no service config replaces, to show.
    pub(crate) fixed: FixedSettings,
    #[cfg(feature = "service-config")]
    pub(crate) in_use: std::sync::Mutex<super::service_config::InUse>,
    /// Notified when a call to an instance with a concurrency limit has ended.
    pub(crate) freed: Notify,
    pub(crate) times: LearntTimes,
    pub(crate) usual: UsualLatency,
    pub(crate) counters: Arc<ServiceMetrics>,
    pub(crate) target: Target,
    pub(crate) propagate: Option<Arc<Propagate>>,
    pub(crate) user_agent: HeaderValue,
    /// Calls that any connection takes at a time: its capacity is not read below this number.
    pub(crate) min_capacity: u32,
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
        self.times.add(method, elapsed, now);
    }

    /// The delay before a hedged attempt, if it is known.
    pub(super) fn hedge_delay(&self, hedge: Hedge, method: MethodSlot) -> Option<Duration> {
        match hedge {
            Hedge::After(delay) | Hedge::Each(delay) => Some(delay),
            Hedge::Percentile95 => self.times.percentile_95(method),
        }
    }
}
