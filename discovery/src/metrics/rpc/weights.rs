//! The metrics of weighted round robin: the weights that servers' load reports make (gRFC A78), and the
//! endpoints that warm up (the draft of gRFC A100).
//!
//! They are counted once per update of the rotation, by the task that makes it, and not by calls.

use std::sync::{Mutex, PoisonError};

use super::family::family;

/// Bounds of weights. gRFC A78 names none, so that implementations have those that OpenTelemetry's SDKs
/// use by default.
const WEIGHTS: [f64; 15] = [
    0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1_000.0, 2_500.0, 5_000.0,
    7_500.0, 10_000.0,
];
/// Endpoints with a usable weight from which on the reported weights are used (gRFC A58).
const ENOUGH: u64 = 2;

/// The weights of all updates of a target.
#[derive(Debug, Default)]
pub(crate) struct Weights(Mutex<Totals>);

/// The endpoints of one update of the rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct WeightUpdate {
    /// Endpoints by their weight, not cumulated.
    counts: [u64; WEIGHTS.len() + 1],
    sum: f64,
    usable: u64,
    not_yet_usable: u64,
    stale: u64,
    in_slow_start: u64,
}

/// A counter of a target.
type Counter = fn(&Totals) -> u64;

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    updates: u64,
    fallbacks: u64,
    endpoints: WeightUpdate,
}

impl WeightUpdate {
    /// Counts an endpoint whose reports make this weight.
    pub(crate) fn usable(&mut self, weight: f64) {
        self.usable += 1;
        self.record(weight);
    }

    /// Counts an endpoint without a report, or in the blackout after its first one.
    pub(crate) fn not_yet_usable(&mut self) {
        self.not_yet_usable += 1;
        self.record(0.0);
    }

    /// Counts an endpoint whose last report has expired.
    pub(crate) fn stale(&mut self) {
        self.stale += 1;
        self.record(0.0);
    }

    /// Counts an endpoint, beside its weight, that warms up.
    pub(crate) fn in_slow_start(&mut self) {
        self.in_slow_start += 1;
    }

    fn record(&mut self, weight: f64) {
        self.counts[WEIGHTS.partition_point(|bound| *bound < weight)] += 1;
        self.sum += weight;
    }

    fn include(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        self.sum += other.sum;
        self.usable += other.usable;
        self.not_yet_usable += other.not_yet_usable;
        self.stale += other.stale;
        self.in_slow_start += other.in_slow_start;
    }
}

impl Weights {
    /// Counts an update.
    pub(crate) fn add(&self, update: &WeightUpdate) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.updates += 1;
        totals.fallbacks += u64::from(update.usable < ENOUGH);
        totals.endpoints.include(update);
    }

    /// The sums, if there was an update.
    fn read(&self) -> Option<Totals> {
        let totals = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (totals.updates > 0).then_some(totals)
    }
}

/// Writes the metrics of the targets, by their escaped names, that have used weighted round robin.
pub(super) fn write<'t>(text: &mut String, targets: impl Iterator<Item = (&'t str, &'t Weights)>) {
    let known: Vec<_> = targets
        .filter_map(|(name, weights)| Some((format!("grpc_target=\"{name}\""), weights.read()?)))
        .collect();
    if known.is_empty() {
        return;
    }
    let counters: [(_, _, Counter); 4] = [
        (
            "grpc_lb_wrr_rr_fallback_total",
            "Updates of weighted round robin with too few reported weights to use them.",
            |totals| totals.fallbacks,
        ),
        (
            "grpc_lb_wrr_endpoint_weight_not_yet_usable_total",
            "Endpoints of each update without a report, or with the first one too recent.",
            |totals| totals.endpoints.not_yet_usable,
        ),
        (
            "grpc_lb_wrr_endpoint_weight_stale_total",
            "Endpoints of each update whose last report has expired.",
            |totals| totals.endpoints.stale,
        ),
        (
            "grpc_lb_wrr_endpoints_in_slow_start_total",
            "Endpoints of each update that warm up.",
            |totals| totals.endpoints.in_slow_start,
        ),
    ];
    for (name, help, value) in counters {
        let mut counter = family(text, name, "counter", help);
        for (labels, totals) in &known {
            counter.sample("", labels, value(totals));
        }
    }
    let mut weights = family(
        text,
        "grpc_lb_wrr_endpoint_weights",
        "histogram",
        "Weight of each endpoint at each update, 0 if none is usable.",
    );
    for (labels, totals) in &known {
        let endpoints = &totals.endpoints;
        weights.histogram(labels, WEIGHTS, &endpoints.counts, endpoints.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::rpc::{Target, grpc_text};

    #[test]
    fn an_update_with_fewer_than_two_weights_is_a_fallback() {
        let target = Target::of("test://weights", "s");
        let weights = &target.metrics().weights;
        let lines = |name: &str| -> Vec<String> {
            let own = |line: &&str| line.starts_with(name) && line.contains("test://weights/s");
            let value = |line: &str| line.rsplit_once(' ').unwrap().1.to_owned();
            grpc_text().lines().filter(own).map(value).collect()
        };
        assert_eq!(lines("grpc_lb_wrr"), [""; 0]);

        let mut update = WeightUpdate::default();
        update.usable(7.5);
        update.stale();
        update.not_yet_usable();
        update.in_slow_start();
        weights.add(&update);
        assert_eq!(lines("grpc_lb_wrr_rr_fallback_total"), ["1"]);
        update.usable(20_000.0);
        weights.add(&update);
        for (name, expected) in [
            ("grpc_lb_wrr_rr_fallback_total", "1"),
            ("grpc_lb_wrr_endpoint_weight_not_yet_usable_total", "2"),
            ("grpc_lb_wrr_endpoint_weight_stale_total", "2"),
            ("grpc_lb_wrr_endpoints_in_slow_start_total", "2"),
            ("grpc_lb_wrr_endpoint_weights_sum", "20015"),
            ("grpc_lb_wrr_endpoint_weights_count", "7"),
        ] {
            assert_eq!(lines(name), [expected], "{name}");
        }
        let buckets = lines("grpc_lb_wrr_endpoint_weights_bucket");
        assert_eq!(buckets.len(), WEIGHTS.len() + 1);
        assert_eq!(buckets[..4], ["4", "4", "6", "6"]);
        assert_eq!(buckets[WEIGHTS.len() - 1..], ["6", "7"]);
    }
}
