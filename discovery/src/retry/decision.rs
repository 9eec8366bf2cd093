//! The step after a failed attempt: a pure function of the failure and the call's progress.

use std::time::Duration;

use fastrand::Rng;

use super::{learnt::Learnt, policy::RetryPolicy};
use crate::{code::Code, protocol::Pushback};

/// The reason why an attempt gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No server processed the request.
    Unprocessed,
    /// The connection was lost after the request was sent.
    Broken,
    /// No answer in the attempt's time.
    Timeout,
    /// A status without a message before it, and the server's pushback.
    Status(Code, Option<Pushback>),
    /// The server does not have the method, and executed nothing.
    WrongServer(Code),
    /// The caller ended its request, by an error or by cancelling it.
    Caller(Code),
    /// A message is longer than the method's limit.
    TooLong,
}

impl Failure {
    /// The status that the caller receives if no other attempt follows.
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Unprocessed | Self::Broken => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
            Self::TooLong => Code::ResourceExhausted,
            Self::Status(code, _) | Self::WrongServer(code) | Self::Caller(code) => code,
        }
    }
}

/// The progress of a call when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Number of attempts that reached a server, the failed one included.
    pub(crate) attempts: u32,
    /// True if the request can be sent again.
    pub(crate) replayable: bool,
    /// True if the method may be executed twice.
    pub(crate) idempotent: bool,
    /// True if there is a usable instance that the call has not tried.
    pub(crate) untried_left: bool,
    /// Number of instances that do not have the method, as this call has seen.
    pub(crate) wrong_servers: usize,
    /// Number of such instances from which on the call asks no other.
    pub(crate) max_wrong_servers: usize,
}

/// Number of instances without a method that a call asks, if another one has answered the method.
/// An ejection needs only a few calls, so there are rarely more.
const MAX_WRONG_SERVERS: usize = 8;
/// The same if no answer of the method is known: then most likely no instance has it.
const MAX_WRONG_SERVERS_UNKNOWN: usize = 3;

/// Number of instances without a method that a call asks. `is_known` is true if an instance has answered
/// the method.
pub(crate) fn max_wrong_servers(is_known: bool) -> usize {
    if is_known {
        MAX_WRONG_SERVERS
    } else {
        MAX_WRONG_SERVERS_UNKNOWN
    }
}

/// The step after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// No other attempt.
    Stop,
    /// Another attempt.
    Retry {
        /// The delay before it.
        after: Duration,
        /// True if it takes a token of the budget.
        paid: bool,
    },
}

impl RetryPolicy {
    /// The time of an attempt that another one may follow, as far as nothing is learnt of the method.
    pub(crate) fn attempt_limit(&self) -> Duration {
        let third = || self.timeout.unwrap_or(Self::DEFAULT_TIMEOUT) / 3;
        self.attempt_timeout.unwrap_or_else(third)
    }

    /// The time after which an attempt is overdue.
    pub(crate) fn overdue_after(&self, learnt: Option<Learnt>) -> Duration {
        let limit = self.attempt_limit();
        match learnt {
            Some(learnt) if self.learn_attempt_timeout => {
                let latest = if self.attempt_timeout.is_some() {
                    limit
                } else {
                    // Most attempts of a slow method must not be overdue.
                    limit.max(learnt.fair())
                };
                learnt.overdue.min(latest)
            }
            _ => limit,
        }
    }

    /// True if the policy retries `failure`.
    pub(crate) fn repeats(&self, failure: Failure, idempotent: bool) -> bool {
        match failure {
            Failure::Unprocessed | Failure::WrongServer(_) => true,
            Failure::Status(_, Some(Pushback::Stop)) | Failure::Caller(_) | Failure::TooLong => {
                false
            }
            Failure::Timeout => idempotent,
            Failure::Broken | Failure::Status(..) => {
                let code = failure.code();
                self.codes.contains(&code) || idempotent && self.idempotent_codes.contains(&code)
            }
        }
    }

    /// The step after `failure`. `rng` is used for the jitter of the backoff.
    pub(crate) fn decide(&self, failure: Failure, progress: Progress, rng: &mut Rng) -> Decision {
        if !progress.replayable {
            return Decision::Stop;
        }
        if failure == Failure::Unprocessed {
            let after = if progress.untried_left {
                Duration::ZERO
            } else {
                self.backoff.after(1, rng)
            };
            return Decision::Retry { after, paid: false };
        }
        if let Failure::WrongServer(_) = failure {
            if !progress.untried_left || progress.wrong_servers >= progress.max_wrong_servers {
                return Decision::Stop;
            }
            return Decision::Retry {
                after: Duration::ZERO,
                paid: false,
            };
        }
        if !self.repeats(failure, progress.idempotent) || progress.attempts >= self.max_attempts {
            return Decision::Stop;
        }
        let after = match failure {
            Failure::Status(_, Some(Pushback::After(wait))) => wait,
            Failure::Status(_, Some(Pushback::Elsewhere)) if !progress.untried_left => {
                return Decision::Stop;
            }
            // The second attempt goes to an untried instance without delay.
            _ if progress.untried_left && progress.attempts == 1 && self.elsewhere_at_once => {
                Duration::ZERO
            }
            _ => self.backoff.after(progress.attempts, rng),
        };
        Decision::Retry { after, paid: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Progress = Progress {
        attempts: 1,
        replayable: true,
        idempotent: false,
        untried_left: true,
        wrong_servers: 0,
        max_wrong_servers: MAX_WRONG_SERVERS,
    };

    fn decide(failure: Failure, progress: Progress) -> Decision {
        RetryPolicy::default().decide(failure, progress, &mut Rng::with_seed(1))
    }

    const RETRY_AT_ONCE: Decision = Decision::Retry {
        after: Duration::ZERO,
        paid: true,
    };

    #[test]
    fn an_unprocessed_request_is_retried_after_any_number_of_attempts() {
        let progress = Progress {
            attempts: 99,
            ..FRESH
        };
        assert_eq!(
            decide(Failure::Unprocessed, progress),
            Decision::Retry {
                after: Duration::ZERO,
                paid: false
            }
        );
        let not_replayable = Progress {
            replayable: false,
            ..FRESH
        };
        assert_eq!(decide(Failure::Unprocessed, not_replayable), Decision::Stop);
    }

    #[test]
    fn the_wrong_server_is_passed_over_until_too_many_say_so() {
        let decide = |wrong_servers, is_known, untried_left| {
            let progress = Progress {
                wrong_servers,
                max_wrong_servers: max_wrong_servers(is_known),
                untried_left,
                ..FRESH
            };
            decide(Failure::WrongServer(Code::Unimplemented), progress)
        };
        let elsewhere = Decision::Retry {
            after: Duration::ZERO,
            paid: false,
        };
        for (wrong_servers, is_known, untried_left, expected) in [
            (1, false, true, elsewhere),
            (3, false, true, Decision::Stop),
            (3, true, true, elsewhere),
            (8, true, true, Decision::Stop),
            (1, true, false, Decision::Stop),
        ] {
            assert_eq!(decide(wrong_servers, is_known, untried_left), expected);
        }
    }

    #[test]
    fn an_attempt_is_overdue_by_what_is_learnt_within_the_policys_limit() {
        let ms = Duration::from_millis;
        let learnt = |p99| {
            Some(Learnt {
                p99: ms(p99),
                overdue: ms(3 * p99),
            })
        };
        let default = RetryPolicy::default();
        let explicit = RetryPolicy::default().with_attempt_timeout(ms(100));
        let fixed = explicit.clone().with_learn_attempt_timeout(false);
        for (policy, learnt, expected) in [
            (&default, None, 166),
            (&default, learnt(20), 60),
            (&default, learnt(80), 166),
            (&default, learnt(200), 300),
            (&explicit, learnt(20), 60),
            (&explicit, learnt(200), 100),
            (&explicit, None, 100),
            (&fixed, learnt(20), 100),
        ] {
            assert_eq!(policy.overdue_after(learnt).as_millis(), expected);
        }
    }

    #[test]
    fn only_idempotent_methods_are_retried_after_a_timeout_or_an_internal_error() {
        let idempotent = Progress {
            idempotent: true,
            ..FRESH
        };
        for failure in [Failure::Timeout, Failure::Status(Code::Internal, None)] {
            assert_eq!(decide(failure, FRESH), Decision::Stop);
            assert_eq!(decide(failure, idempotent), RETRY_AT_ONCE);
        }
        for failure in [Failure::Broken, Failure::Status(Code::Unavailable, None)] {
            assert_eq!(decide(failure, FRESH), RETRY_AT_ONCE);
        }
        for code in [Code::InvalidArgument, Code::NotFound, Code::Unauthenticated] {
            assert_eq!(
                decide(Failure::Status(code, None), idempotent),
                Decision::Stop
            );
        }
    }

    #[test]
    fn no_attempt_follows_the_last() {
        let mut progress = FRESH;
        progress.attempts = 2;
        assert!(matches!(
            decide(Failure::Broken, progress),
            Decision::Retry { .. }
        ));
        progress.attempts = 3;
        assert_eq!(decide(Failure::Broken, progress), Decision::Stop);
    }

    #[test]
    fn another_attempt_at_a_tried_instance_is_delayed() {
        let all_tried = Progress {
            untried_left: false,
            ..FRESH
        };
        for failure in [Failure::Broken, Failure::Unprocessed] {
            let Decision::Retry { after, .. } = decide(failure, all_tried) else {
                panic!("not retried");
            };
            assert!(after >= Duration::from_millis(8), "{after:?}");
        }
    }

    #[test]
    fn a_server_that_asks_to_be_left_alone_is_not_asked_again() {
        let elsewhere = Failure::Status(Code::Unavailable, Some(Pushback::Elsewhere));
        assert_eq!(decide(elsewhere, FRESH), RETRY_AT_ONCE);
        let all_tried = Progress {
            untried_left: false,
            ..FRESH
        };
        assert_eq!(decide(elsewhere, all_tried), Decision::Stop);
    }

    #[test]
    fn the_servers_pushback_sets_the_delay_or_stops_the_call() {
        let wait = Duration::from_millis(70);
        let after = Failure::Status(Code::Unavailable, Some(Pushback::After(wait)));
        assert_eq!(
            decide(after, FRESH),
            Decision::Retry {
                after: wait,
                paid: true
            }
        );
        let stop = Failure::Status(Code::Unavailable, Some(Pushback::Stop));
        assert_eq!(decide(stop, FRESH), Decision::Stop);
    }
}
