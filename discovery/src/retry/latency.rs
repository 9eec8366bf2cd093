//! The 95th percentile of recent latencies: the delay before a hedged attempt.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// Number of buckets per doubling. The error of a percentile is at most about a tenth.
const STEPS: u32 = 8;
/// Number of buckets, for latencies from one microsecond to two minutes.
const BUCKETS: usize = 27 * STEPS as usize;
/// Minimum number of samples for a percentile.
const MIN_SAMPLES: u32 = 100;
/// Interval at which all counts are halved, so that old latencies lose their weight.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// A histogram of latencies whose counts decay. It takes no lock.
#[derive(Debug)]
pub(crate) struct Latencies {
    counts: Box<[AtomicU32]>,
    created: Instant,
    halvings: AtomicU64,
}

impl Latencies {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            created: now,
            halvings: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, latency: Duration, now: Instant) {
        self.age(now);
        self.counts[bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// The 95th percentile; `None` if there are fewer than [`MIN_SAMPLES`].
    pub(crate) fn percentile_95(&self) -> Option<Duration> {
        let counts: Vec<u32> = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let total: u32 = counts.iter().sum();
        if total < MIN_SAMPLES {
            return None;
        }
        let mut above = total / 20;
        for (index, count) in counts.iter().enumerate().rev() {
            if *count > above {
                return Some(upper_edge(index));
            }
            above -= count;
        }
        None
    }

    fn age(&self, now: Instant) {
        let due = now.saturating_duration_since(self.created).as_secs() / HALF_LIFE.as_secs();
        let done = self.halvings.load(Ordering::Relaxed);
        let claimed = due > done
            && self
                .halvings
                .compare_exchange(done, due, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if claimed {
            let shift = (due - done).min(31);
            for count in &self.counts {
                // The closure always returns a value.
                let _halved =
                    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |c| Some(c >> shift));
            }
        }
    }
}

fn bucket(latency: Duration) -> usize {
    let micros = latency.as_secs_f64() * 1e6;
    // The logarithm is negative below a microsecond: the clamp gives the first bucket.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss
    )]
    let index = (micros.log2() * f64::from(STEPS)).clamp(0.0, (BUCKETS - 1) as f64) as usize;
    index
}

fn upper_edge(bucket: usize) -> Duration {
    #[allow(clippy::cast_precision_loss)]
    let micros = ((bucket + 1) as f64 / f64::from(STEPS)).exp2();
    Duration::from_secs_f64(micros / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_percentile_of_recent_latencies() {
        let start = Instant::now();
        let latencies = Latencies::new(start);
        assert_eq!(latencies.percentile_95(), None);
        for millis in 1..=1_000 {
            latencies.add(Duration::from_millis(millis), start);
        }
        let seen = latencies.percentile_95().unwrap().as_millis();
        assert!((950..1_050).contains(&seen), "{seen}");
        let later = start + HALF_LIFE * 6;
        for _ in 0..1_000 {
            latencies.add(Duration::from_millis(10), later);
        }
        let seen = latencies.percentile_95().unwrap().as_millis();
        assert!((10..=11).contains(&seen), "{seen}");
    }

    #[test]
    fn accepts_any_duration() {
        let now = Instant::now();
        let latencies = Latencies::new(now);
        for latency in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            latencies.add(latency, now);
        }
    }
}
