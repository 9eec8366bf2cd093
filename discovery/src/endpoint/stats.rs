//! Statistics of one endpoint as this client sees it: calls in flight, latency, failures.
//!
//! Every call writes them, so they are atomics. Balancers and outlier ejection read them.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

pub use super::recent::EndpointCalls;
use super::{
    joined::Joined,
    recent::{Ended, Recent},
};
#[cfg(feature = "orca")]
use crate::orca::LoadRecord;
use crate::{
    ejection::Health,
    limit::{ConcurrencyLimit, InFlight, Learner},
};

/// Time constant of the decay of a latency peak (the default of Finagle and Linkerd).
const DECAY: Duration = Duration::from_secs(10);
/// Minimum latency of a failed call, so that an instance that fails fast does not look fast (Linkerd's
/// value).
const FAILURE_LATENCY: Duration = Duration::from_secs(5);

/// See the [module](self). What a pick reads stands on one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Stats {
    in_flight: InFlight,
    latency: PeakEwma,
    born: Instant,
    health: Health,
    /// Allocated with the end of the first attempt: an idle endpoint stays small.
    recent: OnceLock<Box<Recent>>,
    /// The last time at which an attempt was late, in milliseconds; 0 before the first.
    late: AtomicU32,
    joined: Joined,
    /// Made when its load reports are read for the first time.
    #[cfg(feature = "orca")]
    load: OnceLock<Box<LoadRecord>>,
    /// Set where the limit is learnt.
    learner: ArcSwapOption<Learner>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            in_flight: InFlight::new(None),
            latency: PeakEwma::default(),
            health: Health::default(),
            born: Instant::now(),
            recent: OnceLock::new(),
            late: AtomicU32::new(0),
            joined: Joined::default(),
            #[cfg(feature = "orca")]
            load: OnceLock::new(),
            learner: ArcSwapOption::empty(),
        }
    }
}

impl Stats {
    /// Number of calls under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.calls()
    }

    /// The smoothed latency at `now`; `None` before the end of the first call. It follows a peak at once
    /// and then decays. A failure counts as at least five seconds.
    #[must_use]
    pub fn latency(&self, now: std::time::Instant) -> Option<Duration> {
        self.latency.get(self.age(now.into()))
    }

    /// The figures of the calls at `now`.
    #[must_use]
    pub fn calls(&self, now: std::time::Instant) -> EndpointCalls {
        let recent = self.recent.get();
        recent.map_or_else(EndpointCalls::default, |recent| {
            recent.figures(self.age(now.into()))
        })
    }

    /// The record of outlier ejection.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Begins a call. False if that would exceed the limit.
    pub(crate) fn begin(&self) -> bool {
        self.in_flight.begin()
    }

    /// Ends a call. True if there is a limit, for which another call may wait.
    pub(crate) fn end(&self) -> bool {
        self.in_flight.end();
        self.in_flight.limit().is_some()
    }

    /// The limit of calls in flight, if there is one.
    #[must_use]
    pub fn concurrency_limit(&self) -> Option<u32> {
        self.in_flight.limit()
    }

    /// True if there are as many calls in flight as the limit allows.
    pub(crate) fn is_at_limit(&self) -> bool {
        self.in_flight.is_full()
    }

    /// Applies a limit. One that is learnt goes on if its settings are the same.
    pub(crate) fn set_limit(&self, limit: &ConcurrencyLimit) {
        let (limit, learner) = match limit {
            ConcurrencyLimit::Off => (None, None),
            ConcurrencyLimit::Fixed(limit) => (Some(limit.get()), None),
            ConcurrencyLimit::Learnt(settings) => {
                let current = self.learner.load();
                if current
                    .as_ref()
                    .is_some_and(|it| it.settings() == *settings)
                {
                    return;
                }
                let learner = Learner::new(*settings, Instant::now());
                (Some(settings.initial), Some(Arc::new(learner)))
            }
        };
        self.learner.store(learner);
        self.in_flight.set_limit(limit);
    }

    /// Notes for the limit that the instance refused a call for overload, or gave no answer in time.
    pub(crate) fn note_overload(&self, now: Instant) {
        self.learn(|learner| learner.note_lost(now, self.in_flight()));
    }

    fn learn(&self, note: impl FnOnce(&Learner) -> Option<u32>) {
        if self.in_flight.limit().is_none() {
            return;
        }
        if let Some(learner) = &*self.learner.load()
            && let Some(limit) = note(learner)
        {
            self.in_flight.set_limit(Some(limit));
        }
    }

    /// Counts an attempt that has ended.
    pub(crate) fn count(&self, now: Instant, ended: Ended) {
        self.recent().add(self.age(now), ended);
    }

    /// Notes the time until a call's first message.
    pub(crate) fn observe(&self, now: Instant, elapsed: Duration, failed: bool) {
        self.add_latency(self.age(now), elapsed, failed);
    }

    /// Notes the time until a call's first message, and counts the attempt.
    pub(crate) fn end_with(&self, now: Instant, elapsed: Duration, failed: bool) {
        let age = self.age(now);
        self.add_latency(age, elapsed, failed);
        let ended = if failed {
            Ended::Failed
        } else {
            self.learn(|learner| learner.note(now, elapsed, self.in_flight()));
            Ended::Answered(elapsed)
        };
        self.recent().add(age, ended);
    }

    fn add_latency(&self, age: Duration, elapsed: Duration, failed: bool) {
        let latency = if failed {
            elapsed.max(FAILURE_LATENCY)
        } else {
            elapsed
        };
        self.latency.add(age, latency);
    }

    fn recent(&self) -> &Recent {
        self.recent.get_or_init(Box::default)
    }

    /// Notes that an attempt takes longer than its method does.
    pub(crate) fn note_late(&self, now: Instant) {
        self.late
            .store(millis(self.age(now)).max(1), Ordering::Relaxed);
    }

    /// True if an attempt was late within this time before `now`.
    pub(crate) fn was_late_since(&self, now: Instant, window: Duration) -> bool {
        let late = self.late.load(Ordering::Relaxed);
        let passed = millis(self.age(now)).max(1).wrapping_sub(late);
        late != 0 && u128::from(passed) <= window.as_millis()
    }

    /// The weight that follows from its load reports.
    #[cfg_attr(
        not(feature = "orca"),
        allow(clippy::unused_self, reason = "as with the feature")
    )]
    pub(crate) fn reported_weight(&self) -> Option<f64> {
        #[cfg(feature = "orca")]
        return self.load_record()?.weight();
        #[cfg(not(feature = "orca"))]
        None
    }

    /// The record of its load reports, if they have been read.
    #[cfg(feature = "orca")]
    pub(crate) fn load_record(&self) -> Option<&LoadRecord> {
        self.load.get().map(|record| &**record)
    }

    /// The record of its load reports, which are read from now on.
    #[cfg(feature = "orca")]
    pub(crate) fn read_load(&self, now: Instant) -> &LoadRecord {
        self.load.get_or_init(|| Box::new(LoadRecord::new(now)))
    }

    /// Notes that the endpoint joins a running set.
    pub(crate) fn note_joined(&self) {
        self.joined.note();
    }

    /// Notes that the endpoint may be picked. If it has joined a running set, its warm-up begins.
    pub(crate) fn begin_warm_up(&self, now: Instant) {
        self.joined.begin(self.age(now));
    }

    /// The time for which an endpoint that joined a running set may be picked; `None` for one of the
    /// first set.
    pub(crate) fn since_joined(&self, now: Instant) -> Option<Duration> {
        self.joined.passed(self.age(now))
    }

    /// Forgets the latency, as it was before an ejection.
    pub(crate) fn forget_latency(&self) {
        self.latency.0.store(0, Ordering::Relaxed);
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }
}

/// An exponentially weighted moving average that follows peaks at once (Finagle's peak EWMA).
///
/// One atomic word: the average in seconds as `f32` bits in the upper half, the milliseconds of the last
/// update in the lower half. Zero means no sample.
#[derive(Debug, Default)]
struct PeakEwma(AtomicU64);

impl PeakEwma {
    fn get(&self, age: Duration) -> Option<Duration> {
        let word = self.0.load(Ordering::Relaxed);
        (word != 0).then(|| {
            let (average, at) = unpack(word);
            // A peak decays without samples too. Otherwise an avoided instance stays avoided.
            Duration::from_secs_f32(average * weight(millis(age).wrapping_sub(at)))
        })
    }

    fn add(&self, age: Duration, sample: Duration) {
        let sample = sample.as_secs_f32().max(f32::MIN_POSITIVE);
        let now = millis(age);
        // The closure always returns a value, so the update cannot fail.
        let _updated = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let (average, at) = unpack(word);
                let average = if word == 0 || sample > average {
                    sample
                } else {
                    let old = weight(now.wrapping_sub(at));
                    average * old + sample * (1.0 - old)
                };
                Some(pack(average, now))
            });
    }
}

/// The part of an average that is left after `elapsed` milliseconds.
fn weight(elapsed: u32) -> f32 {
    // The error is a few millionths of a latency.
    #[allow(clippy::cast_precision_loss)]
    let elapsed = elapsed as f32 / 1_000.0;
    (-elapsed / DECAY.as_secs_f32()).exp()
}

/// Wraps around after 49 days. One update then gets too little weight.
fn millis(age: Duration) -> u32 {
    #[allow(clippy::cast_possible_truncation)]
    let millis = age.as_millis() as u32;
    millis
}

fn pack(average: f32, at: u32) -> u64 {
    u64::from(average.to_bits()) << 32 | u64::from(at)
}

fn unpack(word: u64) -> (f32, u32) {
    #[allow(clippy::cast_possible_truncation)]
    let (high, low) = ((word >> 32) as u32, word as u32);
    (f32::from_bits(high), low)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn latency_follows_a_peak_at_once_and_decays() {
        let stats = Stats::default();
        let start = Instant::now();
        assert_eq!(stats.latency(start.into_std()), None);
        stats.observe(start, 10 * MS, false);
        stats.observe(start, 200 * MS, false);
        let near = |now: Instant, millis: f64| {
            let seen = stats.latency(now.into_std()).unwrap().as_secs_f64() * 1e3;
            assert!((seen - millis).abs() < 0.5, "{seen} is not {millis}");
        };
        near(start, 200.0);
        stats.observe(start, 10 * MS, false);
        near(start, 200.0);
        near(start + DECAY, 200.0 / std::f64::consts::E);
        stats.observe(start + DECAY, 10 * MS, false);
        let e = 1.0 / std::f64::consts::E;
        near(start + DECAY, 200.0 * e + 10.0 * (1.0 - e));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_failure_counts_as_slow() {
        let stats = Stats::default();
        let now = Instant::now();
        stats.observe(now, MS, true);
        assert!(stats.latency(now.into_std()).unwrap() >= FAILURE_LATENCY);
        stats.forget_latency();
        assert_eq!(stats.latency(now.into_std()), None);
    }
}
