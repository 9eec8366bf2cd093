//! The metrics of one method.

use std::{sync::OnceLock, time::Duration};

use super::{
    super::total::Total,
    series::{Series, Totals, bucket},
};
use crate::code::Code;

/// Bounds of latencies in microseconds (gRFC A66).
pub(super) const LATENCIES: [u64; 41] = [
    0,
    10,
    50,
    100,
    300,
    600,
    800,
    1_000,
    2_000,
    3_000,
    4_000,
    5_000,
    6_000,
    8_000,
    10_000,
    13_000,
    16_000,
    20_000,
    25_000,
    30_000,
    40_000,
    50_000,
    65_000,
    80_000,
    100_000,
    130_000,
    160_000,
    200_000,
    250_000,
    300_000,
    400_000,
    500_000,
    650_000,
    800_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
];
/// Bounds of sizes in bytes (gRFC A66).
pub(super) const SIZES: [u64; 14] = [
    0,
    1 << 10,
    1 << 11,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
    1 << 28,
    1 << 30,
    1 << 32,
];
/// Bounds of the numbers of retries and hedges of a call (gRFC A96).
pub(super) const RETRIES: [u64; 5] = [1, 2, 3, 4, 5];
/// Bounds of the number of transparent retries of a call (gRFC A96).
pub(super) const TRANSPARENT: [u64; 6] = [1, 2, 3, 4, 5, 10];

type Latencies = Series<{ LATENCIES.len() + 1 }>;
pub(super) type LatencyTotals = Totals<{ LATENCIES.len() + 1 }>;
type Sizes = Series<{ SIZES.len() + 1 }>;
pub(super) type SizeTotals = Totals<{ SIZES.len() + 1 }>;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct MethodMetrics {
    name: Box<str>,
    started: Total,
    /// In the order of [`Code::ALL`].
    by_code: [OnceLock<Box<OfCode>>; Code::ALL.len()],
    retried: OnceLock<Box<Retried>>,
}

/// Attempts and calls that ended with one status.
#[derive(Debug, Default)]
struct OfCode {
    /// Calls that one attempt answered, and those attempts.
    single: Latencies,
    /// Other attempts.
    attempts: Latencies,
    /// Other calls.
    calls: Latencies,
    sent: Sizes,
    received: Sizes,
}

/// Calls with more than one attempt.
#[derive(Debug, Default)]
pub(super) struct Retried {
    retries: Series<{ RETRIES.len() + 1 }>,
    transparent: Series<{ TRANSPARENT.len() + 1 }>,
    hedges: Series<{ RETRIES.len() + 1 }>,
    delay: Latencies,
}

/// What a call counts beside its attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallCounts {
    pub(crate) retries: u32,
    pub(crate) transparent: u32,
    pub(crate) hedges: u32,
    /// Time without an attempt under way.
    pub(crate) delay: Duration,
}

/// The totals of one status.
pub(super) struct CodeTotals {
    pub(super) code: Code,
    pub(super) attempts: LatencyTotals,
    pub(super) calls: LatencyTotals,
    pub(super) sent: SizeTotals,
    pub(super) received: SizeTotals,
}

/// The totals of calls with more than one attempt.
pub(super) struct RetriedTotals {
    pub(super) retries: Totals<{ RETRIES.len() + 1 }>,
    pub(super) transparent: Totals<{ TRANSPARENT.len() + 1 }>,
    pub(super) hedges: Totals<{ RETRIES.len() + 1 }>,
    pub(super) delay: LatencyTotals,
}

impl MethodMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            started: Total::default(),
            by_code: [const { OnceLock::new() }; Code::ALL.len()],
            retried: OnceLock::new(),
        }
    }

    /// The method as gRPC writes it, such as `pb.Trim/TrimSpace`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is(&self, name: &str) -> bool {
        *self.name == *name
    }

    pub(super) fn is_used(&self) -> bool {
        self.started() > 0
    }

    /// Counts the begin of an attempt.
    pub(crate) fn begin(&self) {
        self.started.increment(1);
    }

    /// Counts the end of a call that one attempt answered, and of that attempt.
    pub(crate) fn end_single(&self, code: Code, elapsed: Duration, sent: u64, received: u64) {
        let cells = self.of(code);
        add_latency(&cells.single, elapsed);
        cells.add_sizes(sent, received);
    }

    /// Counts the end of another attempt.
    pub(crate) fn end_attempt(&self, code: Code, elapsed: Duration, sent: u64, received: u64) {
        let cells = self.of(code);
        add_latency(&cells.attempts, elapsed);
        cells.add_sizes(sent, received);
    }

    /// Counts the end of another call.
    pub(crate) fn end_call(&self, code: Code, elapsed: Duration, counts: &CallCounts) {
        add_latency(&self.of(code).calls, elapsed);
        if *counts == CallCounts::default() {
            return;
        }
        let retried = self.retried.get_or_init(Box::default);
        // A call without retries is not recorded as one with 0 (gRFC A96).
        let add = |number: u32, series: &Series<{ RETRIES.len() + 1 }>| {
            if number > 0 {
                series.add(bucket(&RETRIES, number.into()), number.into());
            }
        };
        add(counts.retries, &retried.retries);
        add(counts.hedges, &retried.hedges);
        let transparent = u64::from(counts.transparent);
        if transparent > 0 {
            let bucket = bucket(&TRANSPARENT, transparent);
            retried.transparent.add(bucket, transparent);
        }
        if counts.retries + counts.transparent > 0 {
            add_latency(&retried.delay, counts.delay);
        }
    }

    /// Moves what was counted into the totals.
    pub(super) fn drain(&self) {
        for cells in self.by_code.iter().filter_map(OnceLock::get) {
            cells.single.read();
            cells.attempts.read();
            cells.calls.read();
            cells.sent.read();
            cells.received.read();
        }
        // Calls with retries are too few to fill a counter.
    }

    pub(super) fn started(&self) -> u64 {
        self.started.get()
    }

    /// The totals of every status that was seen.
    pub(super) fn totals(&self) -> impl Iterator<Item = CodeTotals> {
        let all = Code::ALL.iter().zip(&self.by_code);
        all.filter_map(|(code, cells)| {
            let cells = cells.get()?;
            let single = cells.single.read();
            Some(CodeTotals {
                code: *code,
                attempts: cells.attempts.read().with(&single),
                calls: cells.calls.read().with(&single),
                sent: cells.sent.read(),
                received: cells.received.read(),
            })
        })
    }

    pub(super) fn retried(&self) -> Option<RetriedTotals> {
        let retried = self.retried.get()?;
        Some(RetriedTotals {
            retries: retried.retries.read(),
            transparent: retried.transparent.read(),
            hedges: retried.hedges.read(),
            delay: retried.delay.read(),
        })
    }

    fn of(&self, code: Code) -> &OfCode {
        self.by_code[code as usize].get_or_init(Box::default)
    }
}

impl OfCode {
    fn add_sizes(&self, sent: u64, received: u64) {
        self.sent.add(bucket(&SIZES, sent), sent);
        self.received.add(bucket(&SIZES, received), received);
    }
}

fn add_latency(series: &Latencies, elapsed: Duration) {
    // 64 bits hold half a million years.
    #[allow(clippy::cast_possible_truncation)]
    let micros = elapsed.as_micros() as u64;
    series.add(bucket(&LATENCIES, micros), micros);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_call_that_one_attempt_answers_counts_as_both() {
        let method = MethodMetrics::new("pb.S/M");
        method.end_single(Code::Ok, MS, 10, 2_000);
        method.end_attempt(Code::Unavailable, MS, 10, 0);
        method.end_attempt(Code::Ok, MS, 10, 2_000);
        let counts = CallCounts {
            retries: 1,
            ..CallCounts::default()
        };
        method.end_call(Code::Ok, 2 * MS, &counts);
        let seen: Vec<_> = method.totals().collect();
        assert_eq!(
            seen.iter().map(|one| one.code).collect::<Vec<_>>(),
            [Code::Ok, Code::Unavailable]
        );
        let ok = &seen[0];
        assert_eq!((ok.attempts.count(), ok.calls.count()), (2, 2));
        assert_eq!((ok.attempts.sum, ok.calls.sum), (2_000, 3_000));
        assert_eq!((ok.sent.sum, ok.received.sum), (20, 4_000));
        assert_eq!((seen[1].attempts.count(), seen[1].calls.count()), (1, 0));
        let retried = method.retried().unwrap();
        assert_eq!(retried.retries.counts, [1, 0, 0, 0, 0, 0]);
        assert_eq!(retried.hedges.count() + retried.transparent.count(), 0);
        assert_eq!(retried.delay.count(), 1);
    }
}
