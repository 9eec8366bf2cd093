//! The state machine of one endpoint: its states with their data, its events, and every transition.
//!
//! The picture stands in the documentation of [`EjectionPolicy`].

use tokio::time::Instant;

use super::policy::EjectionPolicy;

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EjectionState {
    /// Receives calls.
    Admitted {
        /// The end of the last ejection, where the slow start begins; `None` before the first.
        since: Option<Instant>,
        /// The last time at which an ejection was forgiven, or the end of the last ejection.
        forgiven: Option<Instant>,
    },
    /// Receives no calls.
    Ejected {
        /// The evidence holds for connections made before.
        since: Instant,
        /// The time of the next probe.
        until: Instant,
    },
    /// A probe is under way.
    Probing {
        /// As in [`Ejected`](Self::Ejected).
        since: Instant,
    },
    /// Receives one call at a time.
    Probation,
}

/// A reason for a transition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'p> {
    /// The evidence of calls singles the endpoint out.
    Outlier(&'p EjectionPolicy),
    /// A review looks for an ejection whose time is over.
    Reviewed,
    /// A connection was made at this time.
    Reconnected(Instant),
    /// No connection is there to probe. The next probe is due at this time.
    Unconnected(Instant),
    /// A probe or a trial call passed.
    Passed,
    /// A probe or a trial call failed.
    Failed(&'p EjectionPolicy),
    /// A bucket of the window has ended.
    BucketEnded(&'p EjectionPolicy),
    /// Ejection was turned off.
    TurnedOff,
}

/// The state of an endpoint, and what outlasts it.
#[derive(Debug)]
pub(super) struct Machine {
    state: EjectionState,
    /// Ejections that are not forgiven yet.
    ejections: u32,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            state: EjectionState::Admitted {
                since: None,
                forgiven: None,
            },
            ejections: 0,
        }
    }
}

impl Machine {
    pub(super) fn state(&self) -> EjectionState {
        self.state
    }

    /// Ejections that are not forgiven yet.
    pub(super) fn ejections(&self) -> u32 {
        self.ejections
    }

    /// Applies an event. Returns the new state if it changed.
    pub(super) fn apply(&mut self, event: Event<'_>, now: Instant) -> Option<EjectionState> {
        use EjectionState::{Admitted, Ejected, Probation, Probing};

        self.state = match (self.state, event) {
            (Admitted { .. }, Event::Outlier(policy))
            | (Probing { .. } | Probation, Event::Failed(policy)) => {
                self.ejections = self.ejections.saturating_add(1);
                Ejected {
                    since: now,
                    until: now + policy.time(self.ejections),
                }
            }
            (Ejected { since, until }, Event::Reviewed) if until <= now => Probing { since },
            // The evidence is about another connection, maybe about another process.
            (Ejected { since, until }, Event::Reconnected(at)) if since < at && at < until => {
                Ejected { since, until: at }
            }
            // Not a failure. A connection that was lost already must not be taken for a new one.
            (Probing { .. }, Event::Unconnected(until)) => Ejected { since: now, until },
            (Probing { .. }, Event::Passed) => Probation,
            (Probation, Event::Passed) => Admitted {
                since: Some(now),
                forgiven: Some(now),
            },
            (
                Admitted {
                    since,
                    forgiven: Some(forgiven),
                },
                Event::BucketEnded(policy),
            ) if self.ejections > 0 && forgiven + policy.window <= now => {
                self.ejections -= 1;
                Admitted {
                    since,
                    forgiven: Some(now),
                }
            }
            (Ejected { .. } | Probing { .. } | Probation, Event::TurnedOff) => {
                self.ejections = 0;
                Admitted {
                    since: None,
                    forgiven: None,
                }
            }
            _ => return None,
        };
        Some(self.state)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Every state under every event: the transitions of the picture, and no others.
    #[test]
    fn changes_only_as_the_picture_says() {
        let policy = EjectionPolicy::default();
        let before = Instant::now();
        let second = Duration::from_secs(1);
        let (now, later) = (before + policy.max_time, before + 2 * policy.max_time);
        let states = [
            EjectionState::Admitted {
                since: Some(before),
                forgiven: Some(before),
            },
            EjectionState::Ejected {
                since: before,
                until: now,
            },
            EjectionState::Probing { since: before },
            EjectionState::Probation,
        ];
        let events = [
            Event::Outlier(&policy),
            Event::Reviewed,
            Event::Reconnected(before + second),
            Event::Unconnected(later),
            Event::Passed,
            Event::Failed(&policy),
            Event::BucketEnded(&policy),
            Event::TurnedOff,
        ];
        let again = Some(EjectionState::Ejected {
            since: now,
            until: now + 2 * policy.base_time,
        });
        let forgiven = Some(EjectionState::Admitted {
            since: Some(before),
            forgiven: Some(now),
        });
        let probing = Some(EjectionState::Probing { since: before });
        let sooner = Some(EjectionState::Ejected {
            since: before,
            until: before + second,
        });
        let postponed = Some(EjectionState::Ejected {
            since: now,
            until: later,
        });
        let probation = Some(EjectionState::Probation);
        let admitted = Some(EjectionState::Admitted {
            since: Some(now),
            forgiven: Some(now),
        });
        let reset = Some(EjectionState::Admitted {
            since: None,
            forgiven: None,
        });
        let expected = [
            [again, None, None, None, None, None, forgiven, None],
            [None, probing, sooner, None, None, None, None, reset],
            [None, None, None, postponed, probation, again, None, reset],
            [None, None, None, None, admitted, again, None, reset],
        ];
        for (state, expected) in states.into_iter().zip(expected) {
            for (event, expected) in events.into_iter().zip(expected) {
                let mut machine = Machine {
                    state,
                    ejections: 1,
                };
                assert_eq!(
                    machine.apply(event, now),
                    expected,
                    "{state:?} under {event:?}"
                );
                assert_eq!(machine.state(), expected.unwrap_or(state));
            }
        }
    }

    #[test]
    fn a_lost_connection_does_not_end_an_ejection() {
        let policy = EjectionPolicy::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut machine = Machine::default();
        machine.apply(Event::Outlier(&policy), start);
        let connected = start + second;
        machine.apply(Event::Reconnected(connected), connected);
        machine.apply(Event::Reviewed, connected);
        let lost = start + 2 * second;
        machine.apply(Event::Unconnected(lost + second), lost);
        assert_eq!(machine.apply(Event::Reconnected(connected), lost), None);
        assert_eq!(machine.apply(Event::Reviewed, lost), None);
        let again = lost + second / 2;
        machine.apply(Event::Reconnected(again), again);
        assert_eq!(
            machine.apply(Event::Reviewed, again),
            Some(EjectionState::Probing { since: lost })
        );
    }
}
