//! A histogram to which a call adds with one atomic operation.
//!
//! Each bucket is one word: the number of values in its upper part, their sum in its lower part. The words
//! are drained into wider totals at least once a second, by the publication of the channel's metrics.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Bits of a word that hold the sum: 12 days of latency in microseconds, or a terabyte, per second and
/// bucket. The others count 16 million values.
const SUM_BITS: u32 = 40;
const SUM: u64 = (1 << SUM_BITS) - 1;

/// A histogram of `N` buckets.
#[derive(Debug)]
pub(super) struct Series<const N: usize> {
    words: [AtomicU64; N],
    totals: Mutex<Totals<N>>,
}

/// The values of all time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals<const N: usize> {
    /// Number of values of each bucket, not cumulated.
    pub(super) counts: [u64; N],
    pub(super) sum: u64,
}

impl<const N: usize> Default for Totals<N> {
    fn default() -> Self {
        Self {
            counts: [0; N],
            sum: 0,
        }
    }
}

impl<const N: usize> Totals<N> {
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Both together.
    pub(super) fn with(mut self, other: &Self) -> Self {
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        self.sum += other.sum;
        self
    }
}

impl<const N: usize> Default for Series<N> {
    fn default() -> Self {
        Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            totals: Mutex::default(),
        }
    }
}

impl<const N: usize> Series<N> {
    /// Adds a value to a bucket.
    pub(super) fn add(&self, bucket: usize, value: u64) {
        self.words[bucket].fetch_add(1 << SUM_BITS | value.min(SUM), Ordering::Relaxed);
    }

    /// The values so far.
    pub(super) fn read(&self) -> Totals<N> {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        for (word, count) in self.words.iter().zip(0..) {
            // A read leaves the line of an idle bucket where it is.
            if word.load(Ordering::Relaxed) > 0 {
                let added = word.swap(0, Ordering::Relaxed);
                totals.counts[count] += added >> SUM_BITS;
                totals.sum += added & SUM;
            }
        }
        *totals
    }
}

/// The bucket of a value: the first bound that is not below it.
pub(super) fn bucket(bounds: &[u64], value: u64) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_the_values_up_to_its_bound() {
        let bounds = [0, 10, 20];
        for (value, expected) in [(0, 0), (1, 1), (10, 1), (11, 2), (20, 2), (21, 3)] {
            assert_eq!(bucket(&bounds, value), expected, "{value}");
        }
    }

    #[test]
    fn nothing_is_lost_between_drains() {
        const THREADS: u64 = 4;
        const VALUES: u64 = 20_000;
        let series = Series::<2>::default();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for value in 0..VALUES {
                        series.add(usize::from(value % 2 == 1), 3);
                        if value % 1_000 == 0 {
                            series.read();
                        }
                    }
                });
            }
        });
        let all = THREADS * VALUES;
        let totals = series.read();
        assert_eq!((totals.counts, totals.sum), ([all / 2; 2], 3 * all));
        assert_eq!(totals.count(), all);
        assert_eq!(totals.with(&totals).sum, 6 * all);
    }
}
