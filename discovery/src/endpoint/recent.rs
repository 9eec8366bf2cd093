//! The calls of one endpoint, in all and within the last seconds: how many ended, how, and how long
//! they took.
//!
//! A call adds one to a counter of the current period. The first one of a new period moves the
//! counters of the one before it aside, so that without calls nothing happens.

use std::{
    array,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// A period. A reader sees the current one and the one before it.
const PERIOD_SECONDS: u64 = 5;
/// Shortest time over which a rate is computed.
const SHORTEST: Duration = Duration::from_secs(1);
/// Latencies are counted in units of 2^14 ns, about 16 us.
const UNIT_SHIFT: u32 = 14;
/// Latencies from 2^22 units, about 69 s, are counted as this one.
const LONGEST: u64 = (1 << 22) - 1;
/// Buckets of latencies: four per doubling, as in `HdrHistogram`.
const BUCKETS: usize = 84;
const FAILED: usize = BUCKETS;
const OVERTAKEN: usize = BUCKETS + 1;
const SLOTS: usize = BUCKETS + 2;

/// The end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// An answer that does not count as a failure, after this time.
    Answered(Duration),
    /// A status that blames the server, a broken connection, or no answer in time.
    Failed,
    /// Cancelled, because an attempt elsewhere was answered first.
    Overtaken,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Recent {
    period: AtomicU32,
    current: [AtomicU32; SLOTS],
    past: Mutex<Past>,
}

#[derive(Debug)]
struct Past {
    previous: [u32; SLOTS],
    /// The sums over the periods before the previous one.
    older: Sums,
}

/// Numbers of attempts.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    answered: u64,
    failed: u64,
    overtaken: u64,
}

/// The figures of the recent calls at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EndpointCalls {
    /// Attempts that ended, since the instance was added.
    pub ended: u64,
    /// Those of them that failed: a status that blames the server, a broken connection, or no answer in
    /// time.
    pub failed: u64,
    /// Attempts that ended per second, within the last five to ten seconds.
    pub per_second: f64,
    /// Failed attempts per second, within the same time.
    pub failed_per_second: f64,
    /// Median of the latencies within the same time, with an error of at most an eighth. `None` without
    /// an answer. Serialized in seconds, as the others.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_seconds")
    )]
    pub p50: Option<Duration>,
    /// The 95th percentile.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_seconds")
    )]
    pub p95: Option<Duration>,
    /// The 99th percentile.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_seconds")
    )]
    pub p99: Option<Duration>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            period: AtomicU32::new(0),
            current: array::from_fn(|_| AtomicU32::new(0)),
            past: Mutex::new(Past {
                previous: [0; SLOTS],
                older: Sums::default(),
            }),
        }
    }
}

impl Recent {
    /// Counts an attempt that ends at this age of the endpoint.
    pub(super) fn add(&self, age: Duration, ended: Ended) {
        let period = period(age);
        if self.period.load(Ordering::Relaxed) != period {
            self.try_begin(period);
        }
        let slot = match ended {
            Ended::Answered(elapsed) => bucket(elapsed),
            Ended::Failed => FAILED,
            Ended::Overtaken => OVERTAKEN,
        };
        self.current[slot].fetch_add(1, Ordering::Relaxed);
    }

    /// The figures at this age of the endpoint.
    pub(super) fn figures(&self, age: Duration) -> EndpointCalls {
        let mut past = self.lock();
        self.begin(period(age), &mut past);
        let mut slots = past.previous;
        let older = past.older;
        for (slot, current) in slots.iter_mut().zip(&self.current) {
            *slot += current.load(Ordering::Relaxed);
        }
        drop(past);
        let recent = Sums::of(&slots);
        let begun = Duration::from_secs(u64::from(period(age)).saturating_sub(1) * PERIOD_SECONDS);
        let seconds = age.saturating_sub(begun).max(SHORTEST).as_secs_f64();
        // Counts of some seconds are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let rate = |count: u64| count as f64 / seconds;
        EndpointCalls {
            ended: older.ended() + recent.ended(),
            failed: older.failed + recent.failed,
            per_second: rate(recent.ended()),
            failed_per_second: rate(recent.failed),
            p50: percentile(&slots, 0.5),
            p95: percentile(&slots, 0.95),
            p99: percentile(&slots, 0.99),
        }
    }

    /// Moves the counters aside, unless another thread does, or reads them: an attempt may count in either
    /// period.
    #[cold]
    fn try_begin(&self, period: u32) {
        if let Ok(mut past) = self.past.try_lock() {
            self.begin(period, &mut past);
        }
    }

    /// Moves the counters aside if this is a later period.
    fn begin(&self, period: u32, past: &mut Past) {
        let seen = self.period.load(Ordering::Relaxed);
        if period <= seen {
            return;
        }
        past.older.add(Sums::of(&past.previous));
        for (previous, current) in past.previous.iter_mut().zip(&self.current) {
            *previous = current.swap(0, Ordering::Relaxed);
        }
        if period > seen + 1 {
            past.older.add(Sums::of(&past.previous));
            past.previous = [0; SLOTS];
        }
        self.period.store(period, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn of(slots: &[u32; SLOTS]) -> Self {
        let (latencies, others) = slots.split_at(BUCKETS);
        Self {
            answered: latencies.iter().map(|count| u64::from(*count)).sum(),
            failed: others[FAILED - BUCKETS].into(),
            overtaken: others[OVERTAKEN - BUCKETS].into(),
        }
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.overtaken += other.overtaken;
    }

    fn ended(self) -> u64 {
        self.answered + self.failed + self.overtaken
    }
}

fn period(age: Duration) -> u32 {
    // Wraps around after 680 years.
    #[allow(clippy::cast_possible_truncation)]
    let period = (age.as_secs() / PERIOD_SECONDS) as u32;
    period
}

fn bucket(latency: Duration) -> usize {
    // Longer ones do not fit 64 bits. An attempt of 69 s has the last bucket.
    let seconds = latency.as_secs().min(1_000);
    let nanos = seconds * 1_000_000_000 + u64::from(latency.subsec_nanos());
    // At most `LONGEST`, so the conversion keeps the value.
    #[allow(clippy::cast_possible_truncation)]
    let units = (nanos >> UNIT_SHIFT).min(LONGEST) as u32;
    let bucket = if units < 4 {
        units
    } else {
        let doublings = units.ilog2();
        (doublings - 1) * 4 + ((units >> (doublings - 2)) & 3)
    };
    bucket as usize
}

/// The shortest latency of a bucket, or of the one after the last.
fn lower_edge(bucket: usize) -> Duration {
    let units = if bucket < 4 {
        bucket as u64
    } else {
        (4 + bucket as u64 % 4) << (bucket / 4 - 1)
    };
    Duration::from_nanos(units << UNIT_SHIFT)
}

/// The latency that this share of the answers does not exceed, by interpolation within a bucket.
fn percentile(slots: &[u32; SLOTS], share: f64) -> Option<Duration> {
    let latencies = &slots[..BUCKETS];
    let total: u32 = latencies.iter().sum();
    let mut left = f64::from(total) * share;
    for (bucket, count) in latencies.iter().enumerate() {
        let count = f64::from(*count);
        if count > 0.0 && left <= count {
            let (low, high) = (lower_edge(bucket), lower_edge(bucket + 1));
            return Some(low + high.saturating_sub(low).mul_f64(left / count));
        }
        left -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn every_latency_is_within_the_edges_of_its_bucket() {
        for exponent in 0..45 {
            for step in [0, 1, 3, 5, 7] {
                let latency = Duration::from_nanos((1 << exponent) + (step << exponent) / 8);
                let bucket = bucket(latency);
                assert!(bucket < BUCKETS, "{latency:?}");
                assert!(lower_edge(bucket) <= latency, "{latency:?}");
                if bucket + 1 < BUCKETS {
                    assert!(latency < lower_edge(bucket + 1), "{latency:?}");
                }
            }
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert_eq!(bucket(Duration::ZERO), 0);
    }

    #[test]
    fn percentiles_are_those_of_the_recent_answers_within_an_eighth() {
        let recent = Recent::default();
        for millis in 1..=1_000 {
            recent.add(SECOND, Ended::Answered(millis * MS));
        }
        let seen = recent.figures(2 * SECOND);
        for (seen, expected) in [(seen.p50, 500), (seen.p95, 950), (seen.p99, 990)] {
            let seen = seen.unwrap().as_secs_f64() * 1e3;
            let error = (seen / f64::from(expected) - 1.0).abs();
            assert!(error <= 0.125, "{seen} is not {expected}");
        }
        // Two periods later they no longer count.
        let later = recent.figures(11 * SECOND);
        assert_eq!((later.p50, later.per_second), (None, 0.0));
        assert_eq!(later.ended, 1_000);
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_totals_stay() {
        let recent = Recent::default();
        for second in 0..60 {
            for _ in 0..100 {
                recent.add(second * SECOND, Ended::Answered(MS));
            }
            recent.add(second * SECOND, Ended::Failed);
            recent.add(second * SECOND, Ended::Overtaken);
        }
        let seen = recent.figures(60 * SECOND);
        assert_eq!((seen.ended, seen.failed), (60 * 102, 60));
        let near = |seen: f64, expected: f64| (seen / expected - 1.0).abs() < 0.01;
        assert!(near(seen.per_second, 102.0), "{seen:?}");
        assert!(near(seen.failed_per_second, 1.0), "{seen:?}");
    }

    #[test]
    fn nothing_is_lost_when_threads_and_readers_meet_at_the_end_of_a_period() {
        const THREADS: u32 = 4;
        const CALLS: u32 = 20_000;
        let recent = Recent::default();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for call in 0..CALLS {
                        recent.add(call * MS * 2, Ended::Answered(MS));
                        if call % 100 == 0 {
                            recent.figures(call * MS * 2);
                        }
                    }
                });
            }
        });
        let seen = recent.figures(CALLS * MS * 2);
        assert_eq!(seen.ended, u64::from(THREADS * CALLS));
    }
}
