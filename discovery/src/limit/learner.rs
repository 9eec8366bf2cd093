//! Gathers what calls on several threads see into windows, from which a limit is learnt.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{LearntLimit, learnt::Learnt, learnt::Window};

/// Shortest window.
const SHORTEST: Duration = Duration::from_millis(100);
/// Longest window, unless there are few calls.
const LONGEST: Duration = Duration::from_secs(5);
/// A window lasts at least this many times the latency: calls that began before it say nothing about the
/// limit in it.
const LATENCIES: u32 = 2;
/// Fewest calls of a window.
const FEWEST: u32 = 10;

/// See the [module](self). Counters that meet the end of a window may count in either.
#[derive(Debug)]
pub(crate) struct Learner {
    born: Instant,
    calls: AtomicU32,
    lost: AtomicU32,
    most: AtomicU32,
    micros: AtomicU64,
    /// When the window ends, in microseconds since `born`.
    due: AtomicU64,
    learnt: Mutex<Learnt>,
}

impl Learner {
    pub(crate) fn new(settings: LearntLimit, now: Instant) -> Self {
        Self {
            born: now,
            calls: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            most: AtomicU32::new(0),
            micros: AtomicU64::new(0),
            due: AtomicU64::new(micros(SHORTEST)),
            learnt: Mutex::new(Learnt::new(settings)),
        }
    }

    pub(crate) fn settings(&self) -> LearntLimit {
        let learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        learnt.settings()
    }

    /// Notes a call that ends, when so many were under way, itself included. Returns the limit if it was
    /// learnt anew.
    pub(crate) fn note(&self, now: Instant, latency: Duration, under_way: u32) -> Option<u32> {
        self.micros.fetch_add(micros(latency), Ordering::Relaxed);
        self.most.fetch_max(under_way, Ordering::Relaxed);
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.learn(now, calls)
    }

    /// Notes a call that was lost to overload.
    pub(crate) fn note_lost(&self, now: Instant, under_way: u32) -> Option<u32> {
        self.most.fetch_max(under_way, Ordering::Relaxed);
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.learn(now, self.calls.load(Ordering::Relaxed))
    }

    fn learn(&self, now: Instant, calls: u32) -> Option<u32> {
        let age = now.saturating_duration_since(self.born);
        let few = calls < FEWEST && self.lost.load(Ordering::Relaxed) < FEWEST;
        if few || micros(age) < self.due.load(Ordering::Relaxed) {
            return None;
        }
        // One thread ends the window; the others go on.
        let mut learnt = self.learnt.try_lock().ok()?;
        let window = Window {
            calls: self.calls.swap(0, Ordering::Relaxed),
            latency: Duration::from_micros(self.micros.swap(0, Ordering::Relaxed)),
            most: self.most.swap(0, Ordering::Relaxed),
            lost: self.lost.swap(0, Ordering::Relaxed),
        };
        let mean = window.latency / window.calls.max(1);
        let next = (mean * LATENCIES).clamp(SHORTEST, LONGEST);
        self.due.store(micros(age + next), Ordering::Relaxed);
        learnt.update(age, window);
        Some(learnt.limit())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
