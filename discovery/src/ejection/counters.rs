//! The counters of one endpoint: written by its calls without a lock, read by the reviews.

use std::collections::VecDeque;

use super::policy::EjectionPolicy;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Buckets of the window.
pub(super) const BUCKETS: u32 = 10;
/// Number of failed calls of an endpoint after which a review compares it with the others. One failure
/// shows nothing, and a review costs as much as some calls.
const COMPARED_AFTER: u32 = 2;

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

/// The runs of failures, and the calls since the endpoint was added. These only grow, and wrap around:
/// differences are read, over times in which an endpoint has far fewer than 2^32 calls.
#[derive(Debug, Default)]
pub(super) struct Counters {
    transport_run: AtomicU32,
    status_run: AtomicU32,
    overtaken_run: AtomicU32,
    good: AtomicU32,
    failed: AtomicU32,
    overloaded: AtomicU32,
    /// The value of `failed` at the last comparison.
    compared: AtomicU32,
}

impl Counters {
    /// Counts the end of an attempt. True if a run has reached its limit, or enough calls have failed for
    /// a comparison with the other endpoints.
    pub(super) fn note(&self, classification: Classification, policy: &EjectionPolicy) -> bool {
        match classification {
            Classification::Success => {
                self.note_success();
                false
            }
            Classification::Transport => {
                let compare = self.fail(policy);
                lengthen(&self.transport_run, policy.consecutive_transport) || compare
            }
            Classification::Status => {
                let compare = self.fail(policy);
                lengthen(&self.status_run, policy.consecutive_status) || compare
            }
            Classification::Overloaded => {
                self.overloaded.fetch_add(1, Ordering::Relaxed);
                false
            }
            Classification::Overtaken => {
                lengthen(&self.overtaken_run, policy.consecutive_overtaken)
            }
        }
    }

    /// Counts a failed call. True if a comparison is due.
    fn fail(&self, policy: &EjectionPolicy) -> bool {
        let failed = self.failed.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let fresh = failed.wrapping_sub(self.compared.load(Ordering::Relaxed));
        fresh.is_multiple_of(COMPARED_AFTER) && policy.compares_shares()
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

    /// The longest run that has reached its limit.
    pub(super) fn exceeded(&self, policy: &EjectionPolicy) -> Option<Run> {
        let run = |length: &AtomicU32, limit, of_statuses, reason| {
            let length = length.load(Ordering::Relaxed);
            let run = Run {
                length,
                of_statuses,
                reason,
            };
            (limit > 0 && length >= limit).then_some(run)
        };
        let runs = [
            run(
                &self.transport_run,
                policy.consecutive_transport,
                false,
                "too many broken or unanswered calls in a row",
            ),
            run(
                &self.status_run,
                policy.consecutive_status,
                true,
                "too many bad statuses in a row",
            ),
            run(
                &self.overtaken_run,
                policy.consecutive_overtaken,
                false,
                "too many calls overtaken by hedged attempts in a row",
            ),
        ];
        runs.into_iter().flatten().max_by_key(|run| run.length)
    }

    /// The calls so far.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            good: self.good.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            overloaded: self.overloaded.load(Ordering::Relaxed),
        }
    }

    /// Notes that the failures up to this mark were compared.
    pub(super) fn compared(&self, mark: Mark) {
        self.compared.store(mark.failed, Ordering::Relaxed);
    }

    /// Ends all runs.
    pub(super) fn reset(&self) {
        for run in self.runs() {
            run.store(0, Ordering::Relaxed);
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

/// Failures of one kind in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) length: u32,
    pub(super) of_statuses: bool,
    /// The reason for an ejection that it is.
    pub(super) reason: &'static str,
}

/// The counters of calls at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    good: u32,
    failed: u32,
    overloaded: u32,
}

impl Mark {
    /// The calls since an earlier mark. One that the server shed for overload counts as bad.
    pub(super) fn since(self, earlier: Self) -> Totals {
        let bad = self.failed_since(earlier) + self.shed_since(earlier);
        Totals {
            good: self.good.wrapping_sub(earlier.good).into(),
            bad,
        }
    }

    /// The same, but one that was shed counts as good: a server that sheds load works, and its ejection
    /// adds to the load of the others.
    pub(super) fn failures_since(self, earlier: Self) -> Totals {
        let good: u64 = self.good.wrapping_sub(earlier.good).into();
        Totals {
            good: good + self.shed_since(earlier),
            bad: self.failed_since(earlier),
        }
    }

    fn failed_since(self, earlier: Self) -> u64 {
        self.failed.wrapping_sub(earlier.failed).into()
    }

    fn shed_since(self, earlier: Self) -> u64 {
        self.overloaded.wrapping_sub(earlier.overloaded).into()
    }
}

/// Where the buckets of the window begin, the oldest first.
#[derive(Debug)]
pub(super) struct Window(VecDeque<Mark>);

impl Default for Window {
    fn default() -> Self {
        Self(VecDeque::from([Mark::default()]))
    }
}

impl Window {
    /// Begins another bucket.
    pub(super) fn push(&mut self, mark: Mark) {
        self.0.push_back(mark);
        if self.0.len() > BUCKETS as usize {
            self.0.pop_front();
        }
    }

    /// Begins anew.
    pub(super) fn clear(&mut self, mark: Mark) {
        self.0.clear();
        self.0.push_back(mark);
    }

    /// The calls within the window up to this mark.
    pub(super) fn totals(&self, now: Mark) -> Totals {
        let begin = self.0.front().copied().unwrap_or_default();
        now.since(begin)
    }
}

/// Numbers of good and bad calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) good: u64,
    pub(super) bad: u64,
}

impl Totals {
    pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        all.into_iter()
            .fold(Self::default(), |sum, one| sum.with(*one))
    }

    pub(super) fn with(self, one: Self) -> Self {
        Self {
            good: self.good + one.good,
            bad: self.bad + one.bad,
        }
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
