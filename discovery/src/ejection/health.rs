//! One endpoint's record: written by calls without a lock, read and moved on by the reviews.

use std::{collections::VecDeque, sync::PoisonError, time::Duration};

use tokio::time::Instant;

use super::{Classification, EjectionPolicy, EjectionState};
use crate::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
};

/// Buckets of the window.
pub(super) const BUCKETS: u32 = 10;
/// Where a slow start begins.
pub(super) const SLOW_START_FLOOR: f64 = 0.1;

/// One endpoint's record.
#[derive(Debug, Default)]
pub(crate) struct Health {
    transport_run: AtomicU32,
    status_run: AtomicU32,
    overtaken_run: AtomicU32,
    good: AtomicU32,
    bad: AtomicU32,
    state: AtomicU8,
    /// The one call of a probation is under way.
    on_trial: AtomicBool,
    /// What that call or the probe before it showed: see `RESULT_*`.
    result: AtomicU8,
    record: Mutex<Record>,
}

const RESULT_NONE: u8 = 0;
const RESULT_GOOD: u8 = 1;
const RESULT_BAD: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Record {
    /// Good and bad calls of the buckets before the current one.
    buckets: VecDeque<(u32, u32)>,
    /// Ejections in short order.
    pub(super) times: u32,
    /// When the last ejection began.
    since: Option<Instant>,
    /// When it ends, or when one was last forgiven.
    pub(super) until: Option<Instant>,
    slow_start_from: Option<Instant>,
}

impl Health {
    pub(crate) fn state(&self) -> EjectionState {
        let index = usize::from(self.state.load(Ordering::Acquire));
        EjectionState::ALL[index.min(EjectionState::ALL.len() - 1)]
    }

    /// Takes the one trial call of a probation, if nobody has.
    pub(crate) fn take_trial(&self) -> bool {
        self.state() == EjectionState::Probation && !self.on_trial.swap(true, Ordering::AcqRel)
    }

    /// Gives the trial back unused.
    pub(crate) fn return_trial(&self) {
        self.on_trial.store(false, Ordering::Release);
    }

    /// Notes how an attempt ended. True when a review may have something to decide.
    pub(crate) fn note(
        &self,
        classification: Classification,
        trial: bool,
        policy: &EjectionPolicy,
    ) -> bool {
        if trial {
            return self.conclude(classification == Classification::Success);
        }
        if self.state() != EjectionState::Admitted {
            // Begun before the ejection; it says nothing that the ejection does not.
            return false;
        }
        match classification {
            Classification::Success => {
                self.good.fetch_add(1, Ordering::Relaxed);
                // Reading first keeps the line shared between cores in the good case.
                for run in [&self.transport_run, &self.status_run, &self.overtaken_run] {
                    if run.load(Ordering::Relaxed) != 0 {
                        run.store(0, Ordering::Relaxed);
                    }
                }
                false
            }
            Classification::Transport => {
                self.count(&self.transport_run, policy.consecutive_transport)
            }
            Classification::Status => self.count(&self.status_run, policy.consecutive_status),
            Classification::Overloaded => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                false
            }
            Classification::Overtaken => {
                let limit = policy.consecutive_overtaken;
                self.overtaken_run.fetch_add(1, Ordering::Relaxed) + 1 >= limit && limit > 0
            }
        }
    }

    fn count(&self, run: &AtomicU32, limit: u32) -> bool {
        self.bad.fetch_add(1, Ordering::Relaxed);
        run.fetch_add(1, Ordering::Relaxed) + 1 >= limit && limit > 0
    }

    /// Notes what a probe or a trial call showed. Always worth a review.
    pub(crate) fn conclude(&self, good: bool) -> bool {
        let result = if good { RESULT_GOOD } else { RESULT_BAD };
        // A swap and no store, for loom orders only these against the review's own swap.
        let _before = self.result.swap(result, Ordering::AcqRel);
        true
    }

    /// Connected anew at `at`: evidence against the process before says little of this one, so an
    /// ejection from before ends with a probe now.
    pub(crate) fn reconnected(&self, at: Instant) {
        if self.state() == EjectionState::Ejected {
            let mut record = self.lock();
            if record.since.is_some_and(|since| since < at) {
                record.until = Some(at);
            }
        }
    }

    /// When the last ejection began.
    pub(crate) fn ejected_at(&self) -> Option<Instant> {
        self.lock().since
    }

    /// There is no connection to probe with: look again later, without calling it a failure.
    pub(crate) fn postpone(&self, until: Instant) {
        self.lock().until = Some(until);
        self.set(EjectionState::Ejected);
    }

    /// The share of its calls that an endpoint in slow start is to get; 1 outside of it.
    pub(crate) fn slow_start_share(&self, now: Instant, policy: &EjectionPolicy) -> f64 {
        match self.lock().slow_start_from {
            Some(from) if now < from + policy.slow_start => {
                let passed = (now - from).as_secs_f64() / policy.slow_start.as_secs_f64();
                passed.max(SLOW_START_FLOOR)
            }
            _ => 1.0,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, state: EjectionState) {
        self.state.store(state as u8, Ordering::Release);
    }

    pub(super) fn runs_over(&self, policy: &EjectionPolicy) -> Option<&'static str> {
        let over = |run: &AtomicU32, limit| limit > 0 && run.load(Ordering::Relaxed) >= limit;
        if over(&self.transport_run, policy.consecutive_transport) {
            Some("calls broken or unanswered in a row")
        } else if over(&self.status_run, policy.consecutive_status) {
            Some("bad statuses in a row")
        } else if over(&self.overtaken_run, policy.consecutive_overtaken) {
            Some("overtaken by second attempts in a row")
        } else {
            None
        }
    }

    /// Good and bad calls within the window.
    pub(super) fn totals(&self) -> Totals {
        let record = self.lock();
        let current = (
            self.good.load(Ordering::Relaxed),
            self.bad.load(Ordering::Relaxed),
        );
        record
            .buckets
            .iter()
            .chain([&current])
            .fold(Totals::default(), |sum, (good, bad)| Totals {
                good: sum.good + u64::from(*good),
                bad: sum.bad + u64::from(*bad),
            })
    }

    pub(super) fn roll(&self, now: Instant, policy: &EjectionPolicy) {
        let mut record = self.lock();
        let bucket = (
            self.good.swap(0, Ordering::Relaxed),
            self.bad.swap(0, Ordering::Relaxed),
        );
        record.buckets.push_back(bucket);
        if record.buckets.len() >= BUCKETS as usize {
            record.buckets.pop_front();
        }
        if record.times > 0
            && self.state() == EjectionState::Admitted
            && record
                .until
                .is_some_and(|since| now >= since + policy.window)
        {
            record.times -= 1;
            record.until = Some(now);
        }
    }

    pub(super) fn eject(&self, now: Instant, policy: &EjectionPolicy) -> Duration {
        let mut record = self.lock();
        record.times = record.times.saturating_add(1);
        let time = policy
            .base_time
            .saturating_mul(record.times)
            .min(policy.max_time);
        record.since = Some(now);
        record.until = Some(now + time);
        record.buckets.clear();
        record.slow_start_from = None;
        for counter in [
            &self.transport_run,
            &self.status_run,
            &self.overtaken_run,
            &self.good,
            &self.bad,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.forget_result();
        self.set(EjectionState::Ejected);
        self.return_trial();
        time
    }

    pub(super) fn admit(&self, now: Instant) {
        let mut record = self.lock();
        record.until = Some(now);
        record.slow_start_from = Some(now);
        self.set(EjectionState::Admitted);
        self.return_trial();
    }

    /// A new probe is under way: what came before does not count.
    pub(super) fn forget_result(&self) {
        self.result.store(RESULT_NONE, Ordering::Release);
    }

    pub(super) fn take_result(&self) -> Option<bool> {
        match self.result.swap(RESULT_NONE, Ordering::AcqRel) {
            RESULT_GOOD => Some(true),
            RESULT_BAD => Some(false),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Totals {
    good: u64,
    bad: u64,
}

impl Totals {
    pub(super) fn sum(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |sum, one| Self {
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

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn failing(self) -> f64 {
        self.bad as f64 / self.calls().max(1) as f64
    }
}
