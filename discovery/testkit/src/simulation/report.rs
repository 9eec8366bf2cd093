//! The measured figures of a phase, and their table.

use std::{sync::Arc, time::Duration};

use super::{Phase, clients::Tally, fleet::Process};
use crate::Table;

/// The figures of one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The phase.
    pub phase: Phase,
    /// Calls made by clients.
    pub calls: u64,
    /// Calls that failed.
    pub lost: u64,
    /// Attempts that reached an instance, per call.
    pub amplification: f64,
    /// Median latency of the calls that succeeded.
    pub p50: Duration,
    /// 99th percentile of that latency.
    pub p99: Duration,
    /// Coefficient of variation (standard deviation over mean) of the calls per instance, over the
    /// instances that ran during the whole phase.
    pub spread: f64,
    /// Mean number of connections per instance at the end of the phase.
    pub connections_mean: f64,
    /// Largest number of connections of one instance at the end of the phase.
    pub connections_most: u64,
    /// Requests per second that the registry received.
    pub registry_rate: f64,
}

impl Row {
    /// Calls that failed, as a share of all calls.
    #[must_use]
    pub fn lost_share(&self) -> f64 {
        share(self.lost, self.calls)
    }
}

/// The rows as a table.
#[must_use]
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "phase",
        "calls",
        "lost",
        "attempts per call",
        "p50",
        "p99",
        "load CV",
        "connections per instance (most)",
        "registry requests/s",
    ]);
    for row in rows {
        table.row([
            row.phase.name().to_owned(),
            row.calls.to_string(),
            format!("{:.4} %", row.lost_share() * 100.0),
            format!("{:.3}", row.amplification),
            format!("{} ms", row.p50.as_millis()),
            format!("{} ms", row.p99.as_millis()),
            format!("{:.3}", row.spread),
            format!("{:.1} ({})", row.connections_mean, row.connections_most),
            format!("{:.1}", row.registry_rate),
        ]);
    }
    table
}

/// The figures of a phase on the side of the fleet.
pub(super) struct Measured {
    pub(super) phase: Phase,
    pub(super) attempts: u64,
    pub(super) spread: f64,
    pub(super) connections: Vec<u64>,
    pub(super) registry_rate: f64,
}

impl Measured {
    /// Adds the figures on the side of the clients.
    pub(super) fn with_calls(self, tally: &Tally) -> Row {
        let connections: u64 = self.connections.iter().sum();
        Row {
            phase: self.phase,
            calls: tally.calls(),
            lost: tally.lost(),
            amplification: share(self.attempts, tally.calls()),
            p50: tally.percentile(50),
            p99: tally.percentile(99),
            spread: self.spread,
            connections_mean: share(connections, self.connections.len() as u64),
            connections_most: self.connections.iter().copied().max().unwrap_or(0),
            registry_rate: self.registry_rate,
        }
    }
}

/// Coefficient of variation of the calls per process. Each process comes with the number of calls
/// that it had received at the start of the phase.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52 calls")]
pub(super) fn spread(watched: &[(Arc<Process>, u64)]) -> f64 {
    let calls: Vec<_> = watched
        .iter()
        .map(|(process, before)| (process.calls() - before) as f64)
        .collect();
    let count = calls.len().max(1) as f64;
    let mean = calls.iter().sum::<f64>() / count;
    let variance = calls.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / count;
    if mean > 0.0 {
        variance.sqrt() / mean
    } else {
        0.0
    }
}

/// A ratio; that of zero to zero is zero.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52 calls")]
pub(super) fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
