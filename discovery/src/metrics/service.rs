//! The metrics of one service: counted here by all its channels, and published to the recorder.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use metrics::{
    Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::{registry::RegistryMetrics, total::Total};
use crate::code::Code;

/// Interval at which counters are published.
pub(crate) const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

const ENDPOINTS: &str = "discovery_endpoints";
const CALLS: &str = "discovery_calls_total";
const ATTEMPTS: &str = "discovery_attempts_total";
const RETRIES: &str = "discovery_retries_total";
const DENIED: &str = "discovery_retries_denied_total";
const HEDGES: &str = "discovery_hedges_total";
const FALLBACKS: &str = "discovery_fallbacks_total";
const LIMITED: &str = "discovery_limited_total";
const FAILURES: &str = "discovery_failures_total";
const DURATION: &str = "discovery_attempt_duration_seconds";

/// Values of the label `state` of the endpoints.
#[derive(Clone, Copy)]
pub(super) enum EndpointState {
    Ready,
    Connecting,
    Down,
    Idle,
    Ejected,
    Protected,
    NotServing,
}

impl EndpointState {
    const NAMES: [&str; 7] = [
        "ready",
        "connecting",
        "down",
        "idle",
        "ejected",
        "protected",
        "not_serving",
    ];
}

/// Numbers of endpoints, in the order of [`EndpointState`].
pub(super) type Counts = [u64; EndpointState::NAMES.len()];

/// The services that this process has had channels to. A service stays after its last channel, so that
/// its counters go on when there is another.
static SERVICES: Mutex<BTreeMap<String, Arc<ServiceMetrics>>> = Mutex::new(BTreeMap::new());

/// See the [module](self).
pub(crate) struct ServiceMetrics {
    service: String,
    pub(crate) calls_ok: Total,
    pub(crate) calls_failed: Total,
    pub(crate) ok: Total,
    pub(crate) status: Total,
    pub(crate) broken: Total,
    pub(crate) timeout: Total,
    pub(crate) unprocessed: Total,
    pub(crate) retries: Total,
    pub(crate) denied: Total,
    pub(crate) hedges: Total,
    pub(crate) fallbacks: Total,
    pub(crate) limited: Total,
    /// In the order of [`Code::ALL`].
    failures: [Total; Code::ALL.len()],
    /// The histogram of the recorder that was there at the last publication.
    duration: ArcSwap<Histogram>,
    /// The lock is held while gauges are set: the last one set has the last sum.
    endpoints: Mutex<Counts>,
    /// By the registry's name.
    registries: Mutex<BTreeMap<String, Arc<RegistryMetrics>>>,
}

impl ServiceMetrics {
    /// The metrics of a service, shared by all its channels.
    pub(crate) fn of(service: &str) -> Arc<Self> {
        let mut services = lock(&SERVICES);
        let known = services
            .entry(service.to_owned())
            .or_insert_with(|| Arc::new(Self::new(service)));
        Arc::clone(known)
    }

    fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            calls_ok: Total::default(),
            calls_failed: Total::default(),
            ok: Total::default(),
            status: Total::default(),
            broken: Total::default(),
            timeout: Total::default(),
            unprocessed: Total::default(),
            retries: Total::default(),
            denied: Total::default(),
            hedges: Total::default(),
            fallbacks: Total::default(),
            limited: Total::default(),
            failures: Default::default(),
            duration: ArcSwap::from_pointee(Histogram::noop()),
            endpoints: Mutex::default(),
            registries: Mutex::default(),
        }
    }

    /// The metrics of a registry's watch of this service.
    pub(crate) fn registry(&self, name: &str) -> Arc<RegistryMetrics> {
        let mut registries = lock(&self.registries);
        let known = registries
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(RegistryMetrics::new(name, &self.service)));
        Arc::clone(known)
    }

    /// Counts a call that ended with an error of the channel.
    pub(crate) fn failure(&self, code: Code) {
        self.calls_failed.increment(1);
        self.failures[code as usize].increment(1);
    }

    /// Records the time of an attempt.
    pub(crate) fn observe(&self, elapsed: Duration) {
        self.duration.load().record(elapsed.as_secs_f64());
    }

    /// Publishes everything. Handles are looked up each time, as the recorder may be a new one.
    pub(crate) fn publish(&self) {
        describe();
        let service = || self.service.clone();
        for (outcome, total) in [("ok", &self.calls_ok), ("failed", &self.calls_failed)] {
            counter!(CALLS, "service" => service(), "outcome" => outcome).absolute(total.get());
        }
        for (outcome, total) in [
            ("ok", &self.ok),
            ("status", &self.status),
            ("broken", &self.broken),
            ("timeout", &self.timeout),
            ("unprocessed", &self.unprocessed),
        ] {
            counter!(ATTEMPTS, "service" => service(), "outcome" => outcome).absolute(total.get());
        }
        for (name, total) in [
            (RETRIES, &self.retries),
            (DENIED, &self.denied),
            (HEDGES, &self.hedges),
            (FALLBACKS, &self.fallbacks),
            (LIMITED, &self.limited),
        ] {
            counter!(name, "service" => service()).absolute(total.get());
        }
        for (code, total) in Code::ALL.iter().zip(&self.failures) {
            let total = total.get();
            if total > 0 {
                counter!(FAILURES, "service" => service(), "code" => code.name()).absolute(total);
            }
        }
        self.duration
            .store(Arc::new(histogram!(DURATION, "service" => service())));
        self.publish_endpoints(&lock(&self.endpoints));
        for registry in lock(&self.registries).values() {
            registry.publish();
        }
    }

    /// Replaces a channel's part of the number of endpoints, and publishes the sum.
    pub(super) fn replace_endpoints(&self, old: &Counts, new: &Counts) {
        let mut sums = lock(&self.endpoints);
        for ((sum, old), new) in sums.iter_mut().zip(old).zip(new) {
            *sum = *sum - old + new;
        }
        self.publish_endpoints(&sums);
    }

    fn publish_endpoints(&self, sums: &Counts) {
        for (state, sum) in EndpointState::NAMES.into_iter().zip(sums) {
            // A number of endpoints is far below 2^53.
            #[allow(clippy::cast_precision_loss)]
            let sum = *sum as f64;
            gauge!(ENDPOINTS, "service" => self.service.clone(), "state" => state).set(sum);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe() {
    describe_gauge!(
        ENDPOINTS,
        "Known instances, by the state of their endpoint."
    );
    describe_counter!(CALLS, "Calls made through a channel.");
    describe_counter!(ATTEMPTS, "Attempts made for those calls.");
    describe_counter!(RETRIES, "Attempts made after an earlier one failed.");
    describe_counter!(
        DENIED,
        "Retries not made because the retry budget was empty."
    );
    describe_counter!(HEDGES, "Attempts made because an earlier one was slow.");
    describe_counter!(
        FALLBACKS,
        "Attempts at an instance that the call does not prefer."
    );
    describe_counter!(
        LIMITED,
        "Calls that failed because every instance was at its concurrency limit."
    );
    describe_counter!(FAILURES, "Calls that ended with an error of the channel.");
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time of an attempt until the first message."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_metric() {
        let table = include_str!("../metrics.rs");
        for name in [
            ENDPOINTS, CALLS, ATTEMPTS, RETRIES, DENIED, HEDGES, LIMITED, FAILURES, DURATION,
        ] {
            assert!(table.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn codes_are_counted_in_their_order() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, index);
        }
    }
}
