//! The metrics that gRPC's own implementations have, by the names of gRFCs A66, A78, A91, A94 and A96: of
//! each method, of connections, of ejections and of reported weights, per target.
//!
//! A call that one attempt answers adds four times to an atomic: an attempt begun, its time, and the size
//! of the request and of the response. Its time counts for the attempt and for the call.
//!
//! The metrics of a target stay for the life of the process, so that a call needs no reference count. A
//! target without a channel is not shown.

mod family;
mod method;
mod series;
mod text;
#[cfg(feature = "orca")]
mod weights;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

pub(crate) use self::method::{CallCounts, MethodMetrics};
pub use self::text::grpc_text;
#[cfg(feature = "orca")]
pub(crate) use self::weights::{WeightUpdate, Weights};
use super::total::Total;

/// Maximum number of methods of a target; calls of others are counted as `other`, as in gRFC A66. The paths
/// of a proxy's calls are chosen by its callers.
const METHODS: usize = 64;
/// Places that a method may have.
const PROBES: usize = 8;

/// The targets that this process has had channels to.
static TARGETS: Mutex<BTreeMap<String, &'static TargetMetrics>> = Mutex::new(BTreeMap::new());

/// The metrics of all channels to one target.
#[derive(Debug)]
pub(crate) struct TargetMetrics {
    name: String,
    /// Number of channels.
    channels: AtomicUsize,
    methods: [OnceLock<Box<MethodMetrics>>; METHODS],
    other: MethodMetrics,
    pub(crate) connected: Total,
    pub(crate) connect_failed: Total,
    pub(crate) disconnected: Total,
    pub(crate) ejections: Ejections,
    #[cfg(feature = "orca")]
    pub(crate) weights: Weights,
}

/// Numbers of ejections, in the order of [`Detection::NAMES`].
#[derive(Debug, Default)]
pub(crate) struct Ejections {
    enforced: [Total; Detection::NAMES.len()],
    unenforced: [Total; Detection::NAMES.len()],
}

/// The evidence of an ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detection {
    SuccessRate,
    FailurePercentage,
    /// Failures in a row, which gRPC does not have.
    Consecutive,
}

impl Detection {
    /// Values of the label (gRFC A91), and one of our own.
    const NAMES: [&str; 3] = ["success_rate", "failure_percentage", "consecutive"];
}

impl Ejections {
    /// Counts an ejection.
    pub(crate) fn enforced(&self, by: Detection) {
        self.enforced[by as usize].increment(1);
    }

    /// Counts an outlier that was not ejected, because as many instances are ejected as may be.
    pub(crate) fn unenforced(&self, by: Detection) {
        self.unenforced[by as usize].increment(1);
    }
}

/// The metrics of a channel's target, shown until this is dropped.
#[derive(Debug)]
pub(crate) struct Target(&'static TargetMetrics);

impl Target {
    /// The target of a channel to a service in a registry.
    pub(crate) fn of(registry: &str, service: &str) -> Self {
        let name = format!("{}/{service}", registry.trim_end_matches('/'));
        let mut targets = targets();
        let metrics = *targets
            .entry(name)
            .or_insert_with_key(|name| Box::leak(Box::new(TargetMetrics::new(name.clone()))));
        metrics.channels.fetch_add(1, Ordering::Relaxed);
        Self(metrics)
    }

    pub(crate) fn metrics(&self) -> &'static TargetMetrics {
        self.0
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.0.channels.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TargetMetrics {
    fn new(name: String) -> Self {
        Self {
            name,
            channels: AtomicUsize::new(0),
            methods: [const { OnceLock::new() }; METHODS],
            other: MethodMetrics::new("other"),
            connected: Total::default(),
            connect_failed: Total::default(),
            disconnected: Total::default(),
            ejections: Ejections::default(),
            #[cfg(feature = "orca")]
            weights: Weights::default(),
        }
    }

    /// The metrics of a method, by its path and the hash of it.
    pub(crate) fn method(&'static self, path: &str, hash: u64) -> &'static MethodMetrics {
        let name = path.strip_prefix('/').unwrap_or(path);
        #[allow(clippy::cast_possible_truncation, reason = "any bits of it will do")]
        let first = hash as usize;
        for step in 0..PROBES {
            let place = &self.methods[first.wrapping_add(step) % METHODS];
            let method = place.get_or_init(|| Box::new(MethodMetrics::new(name)));
            if method.is(name) {
                return method;
            }
        }
        &self.other
    }

    /// Moves what was counted into the totals, before a counter is full.
    pub(crate) fn drain(&self) {
        for method in self.methods() {
            method.drain();
        }
    }

    /// The methods that were called.
    fn methods(&self) -> impl Iterator<Item = &MethodMetrics> {
        let known = self.methods.iter().filter_map(OnceLock::get);
        let other = Some(&self.other).filter(|other| other.is_used());
        known.map(|method| &**method).chain(other)
    }

    fn is_shown(&self) -> bool {
        self.channels.load(Ordering::Relaxed) > 0
    }
}

fn targets() -> std::sync::MutexGuard<'static, BTreeMap<String, &'static TargetMetrics>> {
    TARGETS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;

    #[test]
    fn methods_beyond_the_limit_are_counted_together() {
        let target = Target::of("test://limit", "s");
        let mut names = std::collections::HashSet::new();
        for number in 0..10 * METHODS {
            let path = format!("/pb.S/M{number}");
            let method = target.metrics().method(&path, hash::bytes(path.as_bytes()));
            method.begin();
            names.insert(method.name().to_owned());
        }
        assert!(names.contains("pb.S/M0") && names.contains("other"));
        assert!(names.len() <= METHODS + 1, "{}", names.len());
        assert_eq!(target.metrics().methods().count(), names.len());
    }

    #[test]
    fn a_target_is_shown_while_it_has_a_channel_and_its_counters_go_on() {
        let line =
            "grpc_subchannel_connection_attempts_succeeded_total{grpc_target=\"test://gone/s\"} ";
        let first = Target::of("test://gone/", "s");
        first.metrics().connected.increment(1);
        assert!(grpc_text().contains(&format!("{line}1\n")));
        drop(first);
        assert!(!grpc_text().contains("test://gone/s"));
        let second = Target::of("test://gone", "s");
        second.metrics().connected.increment(1);
        assert!(grpc_text().contains(&format!("{line}2\n")));
    }
}
