//! The part of an endpoint's state that calls use without a lock.
//!
//! One atomic byte. A transition stores it. Between two transitions a call may take the trial, return
//! it and report its result, and a probe may report its result: each is a compare-and-swap from a value
//! that only transitions or the holder of the trial leave.

use super::state::EjectionState;
use crate::sync::atomic::{AtomicU8, Ordering};

/// The values of the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Admitted,
    Ejected,
    Probing,
    /// On probation, with the trial to be taken.
    Probation,
    /// On probation, and a call has the trial.
    OnTrial,
    /// The probe or the trial call passed.
    Passed,
    /// The probe or the trial call failed.
    Failed,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Admitted,
        Self::Ejected,
        Self::Probing,
        Self::Probation,
        Self::OnTrial,
        Self::Passed,
        Self::Failed,
    ];
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU8);

impl Gate {
    fn phase(&self) -> Phase {
        let index = usize::from(self.0.load(Ordering::Acquire));
        Phase::ALL[index.min(Phase::ALL.len() - 1)]
    }

    fn change(&self, from: Phase, to: Phase) -> bool {
        // The load keeps the cache line shared between cores where there is nothing to change.
        self.phase() == from
            && self
                .0
                .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// Stores the result of a transition. The caller holds the machine's lock.
    pub(super) fn show(&self, state: EjectionState) {
        let phase = match state {
            EjectionState::Admitted { .. } => Phase::Admitted,
            EjectionState::Ejected { .. } => Phase::Ejected,
            EjectionState::Probing { .. } => Phase::Probing,
            EjectionState::Probation => Phase::Probation,
        };
        self.0.store(phase as u8, Ordering::Release);
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.phase() == Phase::Admitted
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.phase() == Phase::Ejected
    }

    /// True on probation, unless the trial call has ended.
    pub(super) fn is_on_probation(&self) -> bool {
        matches!(self.phase(), Phase::Probation | Phase::OnTrial)
    }

    /// Takes the trial. False if there is none, or another call has it.
    pub(super) fn take_trial(&self) -> bool {
        self.change(Phase::Probation, Phase::OnTrial)
    }

    /// Returns the trial without a result.
    pub(super) fn return_trial(&self) {
        self.change(Phase::OnTrial, Phase::Probation);
    }

    /// Reports the result of the trial call.
    pub(super) fn end_trial(&self, passed: bool) {
        self.change(Phase::OnTrial, Self::result_of(passed));
    }

    /// Reports the result of the probe.
    pub(super) fn end_probe(&self, passed: bool) {
        self.change(Phase::Probing, Self::result_of(passed));
    }

    /// The reported result of a probe or a trial call. It stays until the next transition.
    pub(super) fn result(&self) -> Option<bool> {
        match self.phase() {
            Phase::Passed => Some(true),
            Phase::Failed => Some(false),
            _ => None,
        }
    }

    fn result_of(passed: bool) -> Phase {
        if passed { Phase::Passed } else { Phase::Failed }
    }
}
