//! Retry: how many attempts a call gets, within what time, after which outcomes, with what backoff
//! and budget.
//!
//! The decision is a pure function of what an attempt met. What may be
//! repeated follows gRPC's retry design (proposal A6) and goes beyond it where Go kit's users expect
//! more:
//!
//! | what the attempt met | repeated |
//! |---|---|
//! | never processed: no connection, `GOAWAY`, `REFUSED_STREAM` | always, and not counted as an attempt |
//! | a status in [`RetryPolicy::codes`], or a connection lost half-way (`UNAVAILABLE`) | yes |
//! | a status in [`RetryPolicy::idempotent_codes`], or no answer in time | if the method is declared idempotent |
//! | anything else, or anything after the first message of the response | no |
//!
//! and always within the deadline, the number of attempts, and the [budget](BudgetPolicy) that keeps retries
//! from multiplying an outage. A server can say when to come back, or not to
//! (`grpc-retry-pushback-ms`).

pub(crate) mod attempts;
pub(crate) mod budget;
pub(crate) mod latency;
pub(crate) mod replay;

use std::{collections::HashSet, time::Duration};

use fastrand::Rng;

pub use self::{
    attempts::{Attempt, CallError},
    budget::BudgetPolicy,
};
use crate::{
    backoff::Backoff,
    grpc::{Code, Pushback},
};

/// What may be repeated, how often, and within what time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts a call may take, the first included; at least 1. Default: 3, as in the tutorial.
    pub max_attempts: u32,
    /// Time for a call with all its attempts, up to the response's first message; a caller's
    /// shorter `grpc-timeout` comes first. A call whose request is streamed has only the caller's.
    /// Default: 500 ms, as in the tutorial.
    pub timeout: Duration,
    /// Time for one attempt of an idempotent method, but for the last, which has all that is left;
    /// other methods are not repeated after a timeout, so one attempt has it all. Default: a third
    /// of [`timeout`](Self::timeout).
    pub attempt_timeout: Option<Duration>,
    /// Status codes after which any method is tried again. Default: `UNAVAILABLE`.
    pub codes: Vec<Code>,
    /// Status codes after which, besides, an idempotent method is tried again. Default: `UNKNOWN`,
    /// `DEADLINE_EXCEEDED`, `INTERNAL`, `DATA_LOSS`, `ABORTED`.
    pub idempotent_codes: Vec<Code>,
    /// Paths (`/pb.Trim/TrimSpace`) of the methods that may be carried out twice. Default: none.
    pub idempotent: HashSet<String>,
    /// Waits before attempts that go back to an instance already tried, or that follow a second
    /// failure. Default: from 10 ms to 250 ms.
    pub backoff: Backoff,
    /// Longest request that is kept for another attempt, and longest response message that is held
    /// back until it is whole, in bytes. Default: 1 MiB.
    pub replay_limit: usize,
    /// Keeps retries from multiplying an outage.
    pub budget: BudgetPolicy,
    /// A second attempt of an idempotent method while the first is still out. Default: none.
    pub hedge: Option<Hedge>,
}

/// When to send a second attempt without waiting for the first to fail.
///
/// The first answer wins and the other attempt is cancelled. Both draw on the retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hedge {
    /// After this long.
    After(Duration),
    /// After what 95 of 100 answers have taken lately; none until a hundred were seen.
    Percentile95,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            timeout: Duration::from_millis(500),
            attempt_timeout: None,
            codes: vec![Code::Unavailable],
            idempotent_codes: vec![
                Code::Unknown,
                Code::DeadlineExceeded,
                Code::Internal,
                Code::DataLoss,
                Code::Aborted,
            ],
            idempotent: HashSet::new(),
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_millis(250)),
            replay_limit: 1 << 20,
            budget: BudgetPolicy::default(),
            hedge: None,
        }
    }
}

/// Why an attempt gave no answer to hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No server has begun to work on it.
    Unprocessed,
    /// The connection was lost after the request was sent.
    Broken,
    /// No answer within the attempt's time.
    Timeout,
    /// A status, without a message before it.
    Status(Code, Option<Pushback>),
}

impl Failure {
    /// The status a caller sees when this was the last of it.
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Unprocessed | Self::Broken => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
            Self::Status(code, _) => code,
        }
    }
}

/// What a call has behind it when an attempt fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Attempts that reached a server, the failed one included.
    pub(crate) attempts: u32,
    /// Whether the request can be sent again.
    pub(crate) replayable: bool,
    /// Whether the method may be carried out twice.
    pub(crate) idempotent: bool,
    /// Whether an instance is left that this call has not tried.
    pub(crate) untried_left: bool,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// That was it.
    Stop,
    /// Try again after this long. Unless the attempt was never processed, the budget must allow it.
    Retry {
        /// Zero for at once.
        after: Duration,
        /// Whether the budget pays for it.
        paid: bool,
    },
}

impl RetryPolicy {
    pub(crate) fn attempt_timeout(&self) -> Duration {
        self.attempt_timeout.unwrap_or(self.timeout / 3)
    }

    /// Whether `failure` is of a kind that another attempt may mend.
    pub(crate) fn repeats(&self, failure: Failure, idempotent: bool) -> bool {
        match failure {
            Failure::Unprocessed => true,
            Failure::Status(_, Some(Pushback::Stop)) => false,
            Failure::Timeout => idempotent,
            Failure::Broken | Failure::Status(..) => {
                let code = failure.code();
                self.codes.contains(&code) || idempotent && self.idempotent_codes.contains(&code)
            }
        }
    }

    /// What to do after `failure`. Pure: the randomness is for the jitter.
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
        if !self.repeats(failure, progress.idempotent) || progress.attempts >= self.max_attempts {
            return Decision::Stop;
        }
        let after = match failure {
            Failure::Status(_, Some(Pushback::After(wait))) => wait,
            // Another instance has not failed yet: nothing is gained by letting the caller wait.
            _ if progress.untried_left && progress.attempts == 1 => Duration::ZERO,
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
    };

    fn decide(failure: Failure, progress: Progress) -> Decision {
        RetryPolicy::default().decide(failure, progress, &mut Rng::with_seed(1))
    }

    const AT_ONCE: Decision = Decision::Retry {
        after: Duration::ZERO,
        paid: true,
    };

    #[test]
    fn what_was_never_processed_is_repeated_whatever_the_count() {
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
        let spent = Progress {
            replayable: false,
            ..FRESH
        };
        assert_eq!(decide(Failure::Unprocessed, spent), Decision::Stop);
    }

    #[test]
    fn only_idempotent_methods_are_repeated_after_a_timeout_or_an_internal_error() {
        let idempotent = Progress {
            idempotent: true,
            ..FRESH
        };
        for failure in [Failure::Timeout, Failure::Status(Code::Internal, None)] {
            assert_eq!(decide(failure, FRESH), Decision::Stop);
            assert_eq!(decide(failure, idempotent), AT_ONCE);
        }
        for failure in [Failure::Broken, Failure::Status(Code::Unavailable, None)] {
            assert_eq!(decide(failure, FRESH), AT_ONCE);
        }
        for code in [Code::InvalidArgument, Code::NotFound, Code::Unauthenticated] {
            assert_eq!(
                decide(Failure::Status(code, None), idempotent),
                Decision::Stop
            );
        }
    }

    #[test]
    fn the_last_attempt_is_the_last() {
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
    fn going_back_to_an_instance_waits() {
        let back = Progress {
            untried_left: false,
            ..FRESH
        };
        for failure in [Failure::Broken, Failure::Unprocessed] {
            let Decision::Retry { after, .. } = decide(failure, back) else {
                panic!("not repeated");
            };
            assert!(after >= Duration::from_millis(8), "{after:?}");
        }
    }

    #[test]
    fn a_server_says_when_to_come_back() {
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
