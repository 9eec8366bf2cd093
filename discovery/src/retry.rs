//! Retry: how many attempts a call gets, within what time, after which outcomes, with what backoff
//! and budget.
//!
//! The decision is a pure function of an attempt's outcome. It follows gRPC's retry design (proposal
//! A6) and goes beyond it where Go kit's users expect more:
//!
//! | outcome of the attempt | repeated |
//! |---|---|
//! | not processed: no connection, `GOAWAY`, `REFUSED_STREAM` | always, and not counted as an attempt |
//! | a status in [`RetryPolicy::codes`], or a connection lost after the request was sent (`UNAVAILABLE`) | yes |
//! | a status in [`RetryPolicy::idempotent_codes`], or no answer in time | if the method is declared idempotent |
//! | anything else, or anything after the first message of the response | no |
//!
//! and always within the deadline, the number of attempts, and the [budget](BudgetPolicy) that keeps
//! retries from amplifying an outage. A server can set the delay before the next attempt, or forbid
//! one (`grpc-retry-pushback-ms`).

pub(crate) mod attempts;
pub(crate) mod budget;
pub(crate) mod latency;
#[cfg(feature = "descriptors")]
pub(crate) mod methods;
pub(crate) mod replay;

use std::{collections::HashSet, time::Duration};

use fastrand::Rng;

pub use self::{
    attempts::{Attempt, CallError, CallErrorKind},
    budget::BudgetPolicy,
};
use crate::{backoff::Backoff, code::Code, error::InvalidSetting, protocol::Pushback};

/// Which calls are repeated, how often, and within what time.
///
/// ```
/// use std::time::Duration;
/// use discovery::retry::RetryPolicy;
///
/// let policy = RetryPolicy::default()
///     .with_max_attempts(4)
///     .with_timeout(Duration::from_secs(1))
///     .with_idempotent(["/pb.Trim/TrimSpace"]);
/// assert!(policy.validate().is_ok());
/// assert!(policy.with_max_attempts(0).validate().is_err());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts a call may take, the first included; at least 1. Default: 3, as in the tutorial.
    pub max_attempts: u32,
    /// Time for a call with all its attempts, up to the response's first message. A shorter deadline
    /// of the caller takes precedence. A call whose request is streamed has the caller's only.
    /// Default: 500 ms, as in the tutorial.
    pub timeout: Duration,
    /// Time for one attempt of an idempotent method. The last attempt has all the time that is left.
    /// Other methods are not repeated after a timeout, so their attempts have all of it too.
    /// Default: a third of [`timeout`](Self::timeout).
    pub attempt_timeout: Option<Duration>,
    /// Status codes after which any method is tried again. Default: `UNAVAILABLE`.
    pub codes: Vec<Code>,
    /// Additional status codes after which an idempotent method is tried again. Default: `UNKNOWN`,
    /// `DEADLINE_EXCEEDED`, `INTERNAL`, `DATA_LOSS`, `ABORTED`.
    pub idempotent_codes: Vec<Code>,
    /// Paths (`/pb.Trim/TrimSpace`) of the methods that may be executed twice. Default: none.
    pub idempotent: HashSet<String>,
    /// Waits before attempts that go back to an instance already tried, or that follow a second
    /// failure. Default: from 10 ms to 250 ms.
    pub backoff: Backoff,
    /// Longest request that is kept for another attempt, and longest response message that is held
    /// back until it is whole, in bytes. Default: 1 MiB.
    pub replay_limit: usize,
    /// Limits the share of retries, so that they do not amplify an outage.
    pub budget: BudgetPolicy,
    /// A second attempt of an idempotent method while the first is under way. Default: none.
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
    /// After the 95th percentile of recent latencies; no hedging before a hundred answers.
    Percentile95,
}

impl RetryPolicy {
    /// Sets [`max_attempts`](Self::max_attempts).
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`attempt_timeout`](Self::attempt_timeout).
    #[must_use]
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Sets [`codes`](Self::codes).
    #[must_use]
    pub fn with_codes(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.codes = codes.into_iter().collect();
        self
    }

    /// Sets [`idempotent_codes`](Self::idempotent_codes).
    #[must_use]
    pub fn with_idempotent_codes(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.idempotent_codes = codes.into_iter().collect();
        self
    }

    /// Adds to [`idempotent`](Self::idempotent).
    #[must_use]
    pub fn with_idempotent<T: Into<String>>(mut self, paths: impl IntoIterator<Item = T>) -> Self {
        self.idempotent.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Sets [`backoff`](Self::backoff).
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets [`replay_limit`](Self::replay_limit).
    #[must_use]
    pub fn with_replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = bytes;
        self
    }

    /// Sets [`budget`](Self::budget).
    #[must_use]
    pub fn with_budget(mut self, budget: BudgetPolicy) -> Self {
        self.budget = budget;
        self
    }

    /// Sets [`hedge`](Self::hedge).
    #[must_use]
    pub fn with_hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let fail =
            |setting, value: String, expected| Err(InvalidSetting::new(setting, value, expected));
        let (timeout, attempt) = (self.timeout, self.attempt_timeout);
        if self.max_attempts == 0 {
            return fail(
                "retry_max",
                "0".to_owned(),
                "a call takes at least one attempt",
            );
        }
        if timeout.is_zero() {
            return fail(
                "retry_timeout",
                format!("{timeout:?}"),
                "must be greater than zero",
            );
        }
        if let Some(attempt) = attempt.filter(|attempt| attempt.is_zero() || *attempt > timeout) {
            let expected = "must be greater than zero and at most retry_timeout";
            return fail("attempt_timeout", format!("{attempt:?}"), expected);
        }
        if let Some(path) = self.idempotent.iter().find(|path| !is_method_path(path)) {
            let expected = "expected a path such as /package.Service/Method";
            return fail("idempotent", format!("{path:?}"), expected);
        }
        if self.backoff.first > self.backoff.ceiling {
            let value = format!("{:?} to {:?}", self.backoff.first, self.backoff.ceiling);
            return fail(
                "retry backoff",
                value,
                "the first wait must not exceed the ceiling",
            );
        }
        if !(0.0..=10.0).contains(&self.budget.share) {
            let value = self.budget.share.to_string();
            return fail("retry budget share", value, "must be between 0 and 10");
        }
        self.validate_hedge()
    }

    fn validate_hedge(&self) -> Result<(), InvalidSetting> {
        let Some(hedge) = self.hedge else {
            return Ok(());
        };
        let expected = if self.max_attempts < 2 {
            "a second attempt needs a retry_max of at least 2"
        } else if self.idempotent.is_empty() {
            "a second attempt is made for idempotent methods only, and none is declared"
        } else {
            match hedge {
                Hedge::After(delay) if delay.is_zero() || delay >= self.timeout => {
                    "the delay must be greater than zero and less than retry_timeout"
                }
                Hedge::After(_) | Hedge::Percentile95 => return Ok(()),
            }
        };
        Err(InvalidSetting::new("hedge", format!("{hedge:?}"), expected))
    }
}

/// True for `/package.Service/Method`, as protobuf writes names.
fn is_method_path(path: &str) -> bool {
    let is_name = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    path.strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .is_some_and(|(service, method)| service.split('.').all(is_name) && is_name(method))
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

/// The reason why an attempt gave no answer to hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No server has processed it.
    Unprocessed,
    /// The connection was lost after the request was sent.
    Broken,
    /// No answer within the attempt's time.
    Timeout,
    /// A status, without a message before it.
    Status(Code, Option<Pushback>),
}

impl Failure {
    /// The status that the caller receives if no other attempt follows.
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Unprocessed | Self::Broken => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
            Self::Status(code, _) => code,
        }
    }
}

/// The progress of a call when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Attempts that reached a server, the failed one included.
    pub(crate) attempts: u32,
    /// True if the request can be sent again.
    pub(crate) replayable: bool,
    /// True if the method may be executed twice.
    pub(crate) idempotent: bool,
    /// True if the call has not tried every instance that can take it.
    pub(crate) untried_left: bool,
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
        /// True if the budget must allow it.
        paid: bool,
    },
}

impl RetryPolicy {
    /// The time of an attempt that may be followed by another.
    pub(crate) fn attempt_limit(&self) -> Duration {
        self.attempt_timeout.unwrap_or(self.timeout / 3)
    }

    /// True if another attempt may succeed after `failure`.
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

    /// The step after `failure`. Pure; the randomness is for the jitter.
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
            // An instance that has not failed yet is tried without delay.
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
