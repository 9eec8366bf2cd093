//! The record of one endpoint for outlier ejection.

use std::sync::PoisonError;

use tokio::time::Instant;

use super::{
    counters::{Classification, Counters, Mark, Run, Totals, Window},
    evidence::Evidence,
    gate::Gate,
    policy::EjectionPolicy,
    state::{EjectionState, Event, Machine},
    status::{Ejection, EjectionPhase},
};
use crate::{
    sync::{Mutex, MutexGuard},
    warm_up::WarmUp,
};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Health {
    counters: Counters,
    gate: Gate,
    record: Mutex<Record>,
}

/// The part that reviews and probes write.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) machine: Machine,
    window: Window,
    /// The counters at the last comparison.
    compared: Mark,
    pub(super) evidence: Evidence,
    /// The evidence for the last ejection.
    reason: &'static str,
}

impl Health {
    /// True if it receives calls.
    pub(crate) fn is_admitted(&self) -> bool {
        self.gate.is_admitted()
    }

    /// True if it may receive a trial call, or has received it.
    pub(crate) fn is_on_probation(&self) -> bool {
        self.gate.is_on_probation()
    }

    /// Takes the one trial call of a probation. False if there is none, or another call has it.
    pub(crate) fn take_trial(&self) -> bool {
        self.gate.take_trial()
    }

    /// Returns the trial without a result.
    pub(crate) fn return_trial(&self) {
        self.gate.return_trial();
    }

    /// Notes that an attempt succeeded which is not a trial.
    pub(crate) fn note_success(&self) {
        if self.is_admitted() {
            self.counters.note_success();
        }
    }

    /// Notes how an attempt ended. True if a review may lead to a transition.
    pub(crate) fn note(
        &self,
        classification: Classification,
        trial: bool,
        policy: &EjectionPolicy,
    ) -> bool {
        if trial {
            self.gate
                .end_trial(classification == Classification::Success);
            return true;
        }
        // An attempt that began before the ejection is part of the same evidence.
        self.is_admitted() && self.counters.note(classification, policy)
    }

    /// Notes the result of a probe. A review follows up on it.
    pub(crate) fn end_probe(&self, passed: bool) {
        self.gate.end_probe(passed);
    }

    /// Notes that no connection is there to probe, which is not a failure. The next probe is due at
    /// `until`, or with the next connection.
    pub(crate) fn postpone_probe(&self, now: Instant, until: Instant) {
        self.apply(Event::Unconnected(until), now);
    }

    /// Notes the time at which the current connection was made. A connection made after the ejection
    /// is probed at once.
    pub(crate) fn connected(&self, at: Instant) {
        if self.gate.is_ejected() {
            self.apply(Event::Reconnected(at), at);
        }
    }

    /// True if a connection made at `at` is the one that the ejection is about.
    pub(crate) fn was_ejected_after(&self, at: Instant) -> bool {
        match self.lock().machine.state() {
            EjectionState::Ejected { since, .. } | EjectionState::Probing { since } => at < since,
            EjectionState::Admitted { .. } | EjectionState::Probation => false,
        }
    }

    /// The current ejection; `None` while it receives calls.
    pub(crate) fn ejection(&self) -> Option<Ejection> {
        if self.is_admitted() {
            return None;
        }
        let record = self.lock();
        let (phase, until) = match record.machine.state() {
            EjectionState::Admitted { .. } => return None,
            EjectionState::Ejected { until, .. } => (EjectionPhase::Ejected, Some(until)),
            EjectionState::Probing { .. } => (EjectionPhase::Probing, None),
            EjectionState::Probation => (EjectionPhase::Probation, None),
        };
        Some(Ejection {
            phase,
            until: until.map(Instant::into_std),
            reason: record.reason,
            ejections: record.machine.ejections(),
        })
    }

    /// The share of its calls that an endpoint in slow start receives; 1 after it.
    pub(crate) fn slow_start_share(&self, now: Instant, policy: &EjectionPolicy) -> f64 {
        match self.lock().machine.state() {
            EjectionState::Admitted {
                since: Some(since), ..
            } => {
                let passed = now.saturating_duration_since(since);
                WarmUp::over(policy.slow_start).share(passed).unwrap_or(1.0)
            }
            _ => 1.0,
        }
    }

    /// Follows up on a result, or on an ejection whose time is over. Returns the new state if it
    /// changed.
    pub(super) fn review(&self, now: Instant, policy: &EjectionPolicy) -> Option<EjectionState> {
        if self.is_admitted() {
            return None;
        }
        match self.gate.result() {
            Some(true) => self.apply(Event::Passed, now),
            Some(false) => self.eject(Event::Failed(policy), "its probe or trial call failed", now),
            None => self.apply(Event::Reviewed, now),
        }
    }

    /// Applies an event that may eject it, for this reason. Returns the new state if it changed.
    pub(super) fn eject(
        &self,
        event: Event<'_>,
        reason: &'static str,
        now: Instant,
    ) -> Option<EjectionState> {
        let mut record = self.lock();
        let state = self.change(&mut record, event, now)?;
        record.reason = reason;
        Some(state)
    }

    /// Applies an event. Returns the new state if it changed.
    pub(super) fn apply(&self, event: Event<'_>, now: Instant) -> Option<EjectionState> {
        self.change(&mut self.lock(), event, now)
    }

    fn change(&self, record: &mut Record, event: Event<'_>, now: Instant) -> Option<EjectionState> {
        let state = record.machine.apply(event, now)?;
        if matches!(state, EjectionState::Ejected { .. }) {
            record.window.clear(self.counters.mark());
            record.evidence = Evidence::default();
            self.counters.reset();
        }
        self.gate.show(state);
        Some(state)
    }

    /// The end of the current ejection.
    pub(super) fn ejected_until(&self) -> Option<Instant> {
        if !self.gate.is_ejected() {
            return None;
        }
        match self.lock().machine.state() {
            EjectionState::Ejected { until, .. } => Some(until),
            _ => None,
        }
    }

    /// The longest run of failures that has reached its limit.
    pub(super) fn exceeded(&self, policy: &EjectionPolicy) -> Option<Run> {
        self.counters.exceeded(policy)
    }

    /// Good and bad calls within the window.
    pub(super) fn totals(&self) -> Totals {
        self.lock().window.totals(self.counters.mark())
    }

    /// Calls since the last time that this was asked for; the bad ones are those that failed.
    pub(super) fn take_fresh(&self) -> Totals {
        let mut record = self.lock();
        let mark = self.counters.mark();
        self.counters.compared(mark);
        mark.failures_since(std::mem::replace(&mut record.compared, mark))
    }

    /// Begins another bucket of the window.
    pub(super) fn end_bucket(&self, now: Instant, policy: &EjectionPolicy) {
        self.lock().window.push(self.counters.mark());
        self.apply(Event::BucketEnded(policy), now);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
