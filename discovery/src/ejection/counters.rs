//! The counters of one endpoint: written by its calls without a lock, read by the reviews.

use std::collections::VecDeque;

use super::policy::EjectionPolicy;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Buckets of the window.
pub(super) const BUCKETS: u32 = 10;

/// The evidence that the end of an attempt gives about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Classification {
    /// An answer that does not blame the server.
    Success,
    /// The connection broke, or no answer came in time.
    Transport,
    /// A status that blames the server.
    Status,
    /// The server is overloaded. Counts toward shares only: a server that sheds load works.
    Overloaded,
    /// Still under way when a hedged attempt elsewhere was answered. A healthy instance's slow calls
    /// look the same, so only a long run of it counts.
    Overtaken,
}

/// The runs of failures, and the good and bad calls of the current bucket.
#[derive(Debug, Default)]
pub(super) struct Counters {
    transport_run: AtomicU32,
    status_run: AtomicU32,
    overtaken_run: AtomicU32,
    good: AtomicU32,
    bad: AtomicU32,
}

impl Counters {
    /// Counts the end of an attempt. True if a run has reached its limit.
    pub(super) fn note(&self, classification: Classification, policy: &EjectionPolicy) -> bool {
        match classification {
            Classification::Success => {
                self.note_success();
                false
            }
            Classification::Transport => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                lengthen(&self.transport_run, policy.consecutive_transport)
            }
            Classification::Status => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                lengthen(&self.status_run, policy.consecutive_status)
            }
            Classification::Overloaded => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                false
            }
            Classification::Overtaken => {
                lengthen(&self.overtaken_run, policy.consecutive_overtaken)
            }
        }
    }

    /// Counts a success.
    pub(super) fn note_success(&self) {
        self.good.fetch_add(1, Ordering::Relaxed);
        // Reading first keeps the cache line shared between cores while nothing fails.
        for run in self.runs() {
            if run.load(Ordering::Relaxed) != 0 {
                run.store(0, Ordering::Relaxed);
            }
        }
    }

    /// The run that has reached its limit, as a reason for an ejection.
    pub(super) fn exceeded(&self, policy: &EjectionPolicy) -> Option<&'static str> {
        let over = |run: &AtomicU32, limit| limit > 0 && run.load(Ordering::Relaxed) >= limit;
        if over(&self.transport_run, policy.consecutive_transport) {
            Some("too many broken or unanswered calls in a row")
        } else if over(&self.status_run, policy.consecutive_status) {
            Some("too many bad statuses in a row")
        } else if over(&self.overtaken_run, policy.consecutive_overtaken) {
            Some("too many calls overtaken by hedged attempts in a row")
        } else {
            None
        }
    }

    /// The calls of the current bucket.
    pub(super) fn current(&self) -> Totals {
        Totals {
            good: self.good.load(Ordering::Relaxed).into(),
            bad: self.bad.load(Ordering::Relaxed).into(),
        }
    }

    /// The calls of the current bucket; begins another one.
    pub(super) fn end_bucket(&self) -> Totals {
        Totals {
            good: self.good.swap(0, Ordering::Relaxed).into(),
            bad: self.bad.swap(0, Ordering::Relaxed).into(),
        }
    }

    pub(super) fn reset(&self) {
        for counter in self.runs().into_iter().chain([&self.good, &self.bad]) {
            counter.store(0, Ordering::Relaxed);
        }
    }

    fn runs(&self) -> [&AtomicU32; 3] {
        [&self.transport_run, &self.status_run, &self.overtaken_run]
    }
}

/// Adds to a run. True if it has reached its limit.
fn lengthen(run: &AtomicU32, limit: u32) -> bool {
    run.fetch_add(1, Ordering::Relaxed) + 1 >= limit && limit > 0
}

/// The buckets of the window before the current one.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<Totals>);

impl Window {
    pub(super) fn push(&mut self, bucket: Totals) {
        self.0.push_back(bucket);
        if self.0.len() >= BUCKETS as usize {
            self.0.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn totals(&self) -> Totals {
        Totals::sum(&self.0)
    }
}

/// Numbers of good and bad calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    good: u64,
    bad: u64,
}

impl Totals {
    pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, one| Self {
            good: sum.good + one.good,
            bad: sum.bad + one.bad,
        })
    }

    pub(super) fn without(self, one: Self) -> Self {
        Self {
            good: self.good - one.good,
            bad: self.bad - one.bad,
        }
    }

    pub(super) fn calls(self) -> u64 {
        self.good + self.bad
    }

    /// The share of bad calls.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn failing(self) -> f64 {
        self.bad as f64 / self.calls().max(1) as f64
    }
}
