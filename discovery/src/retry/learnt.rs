//! What the answers of each method say about its time: when an attempt is overdue, and the delay before a
//! hedged attempt.
//!
//! Each method has a histogram of its latencies, whose counts decay. From it follow, every few answers:
//!
//! ```text
//! overdue       = max(10 ms, 3 * 99th percentile)     after 100 answers
//! delay (hedge) = 95th percentile
//! ```
//!
//! Three times the 99th percentile keeps the share of healthy attempts that are overdue far below one in
//! a hundred, also for latencies with a heavy tail (a Pareto tail with the exponent 1.5 has one in 500).
//! Per percentile and not per mean, so that a method which becomes slower everywhere is learnt from one
//! in a hundred of its answers.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::usual::{MethodSlot, SLOTS};

/// Binary logarithm of the number of buckets per doubling. The error of a percentile is at most an
/// eighth.
const STEPS: u32 = 3;
/// Number of buckets, for latencies from one microsecond to over an hour.
const BUCKETS: usize = 32 << STEPS;
/// Minimum number of samples for a percentile.
const MIN_SAMPLES: u32 = 100;
/// Interval at which all counts are halved, so that old latencies lose their weight.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// The percentiles are computed again when a bucket has received this many further samples.
const REFRESH: u32 = 64;
/// The same for buckets above the 99th percentile: few samples reach them, unless it changes.
const REFRESH_ABOVE: u32 = 4;
/// An attempt is overdue after this many times the 99th percentile.
const MULTIPLE: u32 = 3;
/// An attempt is never overdue before this time: a busy machine delays healthy answers by as much.
const FLOOR: Duration = Duration::from_millis(10);

/// The times of all methods of a channel. It takes no lock.
#[derive(Debug)]
pub(crate) struct LearntTimes {
    methods: Box<[OnceLock<Box<Method>>]>,
    created: Instant,
}

/// What is known of a method's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Learnt {
    /// The 99th percentile.
    pub(crate) p99: Duration,
    /// An attempt without an answer is overdue after this time.
    pub(crate) overdue: Duration,
}

impl Learnt {
    /// The least time after which a lack of an answer says something about an instance.
    pub(crate) fn fair(self) -> Duration {
        (self.p99 * 3 / 2).max(FLOOR)
    }
}

#[derive(Debug)]
struct Method {
    counts: [AtomicU32; BUCKETS],
    halvings: AtomicU64,
    /// In microseconds; 0 while it is not known.
    p95: AtomicU32,
    /// In microseconds; 0 while it is not known.
    p99: AtomicU32,
    prompt: Prompt,
}

/// The latest beginning of an attempt that was answered before it was overdue, in microseconds since the
/// channel was built. In cache lines of its own, because answers write it and every call reads the
/// percentiles.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Prompt(AtomicU64);

impl Prompt {
    /// Later beginnings are noted in steps of this many microseconds, so that few answers write.
    const STEP: u64 = 500;

    fn note(&self, begun: u64) {
        // Of two answers at the same time one may be lost, and others follow.
        if begun >= self.0.load(Ordering::Relaxed) + Self::STEP {
            self.0.store(begun, Ordering::Relaxed);
        }
    }

    fn is_since(&self, begun: u64) -> bool {
        self.0.load(Ordering::Relaxed) >= begun
    }
}

impl Default for Method {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
            halvings: AtomicU64::new(0),
            p95: AtomicU32::new(0),
            p99: AtomicU32::new(0),
            prompt: Prompt::default(),
        }
    }
}

impl LearntTimes {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            methods: (0..SLOTS).map(|_| OnceLock::new()).collect(),
            created: now,
        }
    }

    /// Adds an answer to an attempt that took `latency` until `now`.
    pub(crate) fn add(&self, method: MethodSlot, latency: Duration, now: Instant) {
        let method = self.methods[method.index()].get_or_init(Box::default);
        let age = now.saturating_duration_since(self.created);
        method.age(age);
        let learnt = method.learnt();
        let is_above = learnt.is_none_or(|learnt| latency > learnt.p99);
        let refresh = if is_above { REFRESH_ABOVE } else { REFRESH };
        let count = &method.counts[bucket(latency)];
        // A counter near its end would wrap.
        if count.load(Ordering::Relaxed) < u32::MAX / 2
            && count.fetch_add(1, Ordering::Relaxed) % refresh == refresh - 1
        {
            method.refresh();
        }
        let is_prompt = learnt.is_none_or(|learnt| latency < learnt.overdue);
        if is_prompt {
            method.prompt.note(micros(age.saturating_sub(latency)));
        }
    }

    /// What is known of a method; `None` before a hundred answers.
    pub(crate) fn get(&self, method: MethodSlot) -> Option<Learnt> {
        self.methods[method.index()].get()?.learnt()
    }

    /// The 95th percentile; `None` if there are fewer than [`MIN_SAMPLES`].
    pub(crate) fn percentile_95(&self, method: MethodSlot) -> Option<Duration> {
        let micros = self.methods[method.index()]
            .get()?
            .p95
            .load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }

    /// True if an attempt of the method that began at this time or later was answered before it was
    /// overdue.
    pub(crate) fn was_prompt_since(&self, method: MethodSlot, begun: Instant) -> bool {
        let begun = micros(begun.saturating_duration_since(self.created));
        self.methods[method.index()]
            .get()
            .is_some_and(|method| method.prompt.is_since(begun))
    }
}

impl Method {
    fn learnt(&self) -> Option<Learnt> {
        let micros = self.p99.load(Ordering::Relaxed);
        let p99 = Duration::from_micros(micros.into());
        (micros > 0).then(|| Learnt {
            p99,
            overdue: (p99 * MULTIPLE).max(FLOOR),
        })
    }

    fn refresh(&self) {
        let counts: [u32; BUCKETS] =
            std::array::from_fn(|index| self.counts[index].load(Ordering::Relaxed));
        let total: u64 = counts.iter().copied().map(u64::from).sum();
        let percentile = |share: u64| {
            let mut above = total / share;
            let found = counts.iter().enumerate().rev().find(|(_, count)| {
                let count = u64::from(**count);
                let reached = count > above;
                above = above.saturating_sub(count);
                reached
            });
            found.map_or(0, |(index, _)| upper_edge(index))
        };
        let known = total >= u64::from(MIN_SAMPLES);
        let store = |cell: &AtomicU32, value: u32| {
            // Reading first keeps the cache line shared between cores.
            if cell.load(Ordering::Relaxed) != value {
                cell.store(value, Ordering::Relaxed);
            }
        };
        store(&self.p95, if known { percentile(20) } else { 0 });
        store(&self.p99, if known { percentile(100) } else { 0 });
    }

    /// Halves the counts once per half-life; one of the concurrent callers does it.
    fn age(&self, age: Duration) {
        let due = age.as_secs() / HALF_LIFE.as_secs();
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
            self.refresh();
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The bucket of a latency: the exponent of its microseconds, and the bits after the first.
fn bucket(latency: Duration) -> usize {
    let micros = u32::try_from(latency.as_micros())
        .unwrap_or(u32::MAX)
        .max(1);
    let exponent = micros.ilog2();
    let mantissa = (u64::from(micros) << STEPS >> exponent) & ((1 << STEPS) - 1);
    (exponent << STEPS) as usize + mantissa as usize
}

/// The microseconds below which all latencies of a bucket are.
fn upper_edge(bucket: usize) -> u32 {
    let (exponent, mantissa) = (bucket >> STEPS, bucket & ((1 << STEPS) - 1));
    let edge = ((1 << STEPS) + mantissa as u64 + 1) << exponent >> STEPS;
    u32::try_from(edge).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn method() -> MethodSlot {
        MethodSlot::of(7)
    }

    #[test]
    fn finds_the_percentiles_of_recent_latencies() {
        let start = Instant::now();
        let times = LearntTimes::new(start);
        assert_eq!(times.percentile_95(method()), None);
        for millis in 1..=1_000 {
            times.add(method(), millis * MS, start);
        }
        let seen = times.percentile_95(method()).unwrap().as_millis();
        assert!((950..1_070).contains(&seen), "{seen}");
        let learnt = times.get(method()).unwrap();
        assert!((990..1_115).contains(&learnt.p99.as_millis()), "{learnt:?}");
        assert_eq!(learnt.overdue, 3 * learnt.p99);
        assert_eq!(times.get(MethodSlot::of(8)), None, "another method");
        let later = start + HALF_LIFE * 8;
        times.add(method(), 10 * MS, later);
        assert_eq!(times.get(method()), None, "all of it is old");
        for _ in 0..1_000 {
            times.add(method(), 10 * MS, later);
        }
        let learnt = times.get(method()).unwrap();
        assert!((10..=11).contains(&learnt.p99.as_millis()), "{learnt:?}");
    }

    #[test]
    fn nothing_is_known_before_a_hundred_answers_and_nothing_is_overdue_before_the_floor() {
        let now = Instant::now();
        let times = LearntTimes::new(now);
        for _ in 0..99 {
            times.add(method(), MS, now);
            assert_eq!(times.get(method()), None);
        }
        times.add(method(), MS, now);
        let learnt = times.get(method()).unwrap();
        assert_eq!((learnt.overdue, learnt.fair()), (FLOOR, FLOOR));
    }

    #[test]
    fn a_slower_method_is_learnt_from_a_few_of_its_answers() {
        let now = Instant::now();
        let times = LearntTimes::new(now);
        for _ in 0..2_000 {
            times.add(method(), 5 * MS, now);
        }
        for _ in 0..40 {
            times.add(method(), 50 * MS, now);
        }
        let learnt = times.get(method()).unwrap();
        assert!(learnt.p99 >= 50 * MS, "{learnt:?}");
    }

    #[test]
    fn an_answer_is_prompt_if_it_comes_before_it_is_overdue() {
        let start = Instant::now();
        let times = LearntTimes::new(start);
        for _ in 0..100 {
            times.add(method(), 2 * MS, start + 2 * MS);
        }
        assert!(times.was_prompt_since(method(), start));
        assert!(!times.was_prompt_since(method(), start + MS));
        times.add(method(), 100 * MS, start + 200 * MS);
        assert!(
            !times.was_prompt_since(method(), start + MS),
            "it took 100 ms"
        );
        times.add(method(), 2 * MS, start + 200 * MS);
        assert!(times.was_prompt_since(method(), start + 198 * MS));
    }

    #[test]
    fn every_latency_is_below_the_edge_of_its_bucket_and_not_far() {
        for micros in (1..4_000)
            .chain((0..31).map(|bit| 1 << bit))
            .chain([u32::MAX - 1])
        {
            let edge = upper_edge(bucket(Duration::from_micros(micros.into())));
            assert!(edge >= micros, "{edge} for {micros}");
            assert!(
                u64::from(edge) <= u64::from(micros) * 9 / 8 + 1,
                "{edge} for {micros}"
            );
        }
    }

    #[test]
    fn accepts_any_duration() {
        let now = Instant::now();
        let times = LearntTimes::new(now);
        for latency in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            times.add(method(), latency, now);
        }
    }
}
