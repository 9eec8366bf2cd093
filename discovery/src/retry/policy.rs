//! The settings of retries and hedges.

use std::{collections::HashSet, time::Duration};

use super::budget::BudgetPolicy;
use crate::{backoff::Backoff, code::Code, error::InvalidSetting};

/// The calls that are retried, how often, and in how much time.
///
/// The [module](super) lists which failures are retried.
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
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Maximum number of attempts of a call, the first included; at least 1. Default: 3, as in Go
    /// kit's tutorial.
    pub max_attempts: u32,
    /// Time for a unary call with all its attempts, up to the response's first message. It caps the
    /// caller's deadline. Streams have the caller's deadline only. Default: `None`, the caller's
    /// deadline; a unary call without one has [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT).
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_seconds")
    )]
    pub timeout: Option<Duration>,
    /// Latest time after which an attempt of an idempotent method is overdue: it counts against its
    /// instance as a timeout, and another attempt begins at another instance. The first one to answer
    /// wins. An attempt that no other can follow has all remaining time, and so have those of other
    /// methods. Default: a third of [`timeout`](Self::timeout), or of
    /// [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT).
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_seconds")
    )]
    pub attempt_timeout: Option<Duration>,
    /// True if an attempt is overdue earlier, by the method's own answers: after three times their 99th
    /// percentile, at least 10 ms. Needs a hundred recent answers. Without
    /// [`attempt_timeout`](Self::attempt_timeout) it may also be later, up to one and a half times the
    /// 99th percentile, for a method that takes long everywhere. An overdue attempt then counts against
    /// its instance only if another instance has answered the same method meanwhile, and most others are
    /// not overdue too. Default: true.
    pub learn_attempt_timeout: bool,
    /// Status codes retried for all methods. Default: `UNAVAILABLE`.
    pub codes: Vec<Code>,
    /// Additional status codes retried for idempotent methods. Default: `UNKNOWN`,
    /// `DEADLINE_EXCEEDED`, `INTERNAL`, `DATA_LOSS`, `ABORTED`.
    pub idempotent_codes: Vec<Code>,
    /// Paths (`/pb.Trim/TrimSpace`) of the methods that may be executed twice. Default: none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::sorted"))]
    pub idempotent: HashSet<String>,
    /// Delay before an attempt at an instance that the call has tried, and before the third and later
    /// attempts. Default: from 10 ms to 250 ms.
    pub backoff: Backoff,
    /// Maximum size in bytes of a request that is kept for another attempt, and of a response's first
    /// message that is buffered until it is complete. Default: 1 MiB.
    pub replay_limit: usize,
    /// The limit of retries and hedges, which keeps them from amplifying an outage.
    pub budget: BudgetPolicy,
    /// When to start a second attempt of an idempotent method while the first is in progress.
    /// Default: never.
    pub hedge: Option<Hedge>,
    /// True to send the second attempt to an instance that the call has not tried without a backoff.
    /// Default: true. gRPC waits (gRFC A6), and so does a `retryPolicy` of a service config.
    pub elsewhere_at_once: bool,
}

/// When to start a second attempt without waiting for the failure of the first.
///
/// The call returns the first answer and cancels the other attempt. The second attempt takes a token
/// of the retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Hedge {
    /// After a fixed delay.
    After(
        #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
        Duration,
    ),
    /// After the 95th percentile of the method's recent latencies. Needs at least a hundred answers.
    Percentile95,
    /// Another attempt after each such delay without an answer, up to
    /// [`max_attempts`](RetryPolicy::max_attempts) in all (the hedging policy of gRFC A6). Zero begins
    /// all at once.
    Each(
        #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
        Duration,
    ),
}

impl RetryPolicy {
    /// Time of a unary call for which neither the caller nor [`timeout`](Self::timeout) gives one:
    /// 500 ms, as in Go kit's tutorial.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);

    /// Sets [`max_attempts`](Self::max_attempts).
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets [`attempt_timeout`](Self::attempt_timeout).
    #[must_use]
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Sets [`learn_attempt_timeout`](Self::learn_attempt_timeout).
    #[must_use]
    pub fn with_learn_attempt_timeout(mut self, learn: bool) -> Self {
        self.learn_attempt_timeout = learn;
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

    /// Sets [`elsewhere_at_once`](Self::elsewhere_at_once).
    #[must_use]
    pub fn with_elsewhere_at_once(mut self, at_once: bool) -> Self {
        self.elsewhere_at_once = at_once;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        self.validate_with(!self.idempotent.is_empty())
    }

    /// Checks every setting. `some_idempotent` is true if there can be calls that may be executed twice.
    pub(crate) fn validate_with(&self, some_idempotent: bool) -> Result<(), InvalidSetting> {
        let fail =
            |setting, value: String, expected| Err(InvalidSetting::new(setting, value, expected));
        let (timeout, attempt) = (self.timeout, self.attempt_timeout);
        if self.max_attempts == 0 {
            return fail("retry_max", "0".to_owned(), "must be at least 1");
        }
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return fail(
                "retry_timeout",
                "0ns".to_owned(),
                "must be greater than zero",
            );
        }
        let is_longer = |attempt| timeout.is_some_and(|timeout| attempt > timeout);
        if let Some(attempt) = attempt.filter(|attempt| attempt.is_zero() || is_longer(*attempt)) {
            let expected = "must be greater than zero and at most retry_timeout";
            return fail("attempt_timeout", format!("{attempt:?}"), expected);
        }
        if let Some(path) = self.idempotent.iter().find(|path| !is_method_path(path)) {
            let expected = "expected a path such as /package.Service/Method";
            return fail("idempotent", format!("{path:?}"), expected);
        }
        self.backoff.validate().map_err(|error| InvalidSetting {
            setting: "retry backoff",
            ..error
        })?;
        self.budget.validate()?;
        self.validate_hedge(some_idempotent)
    }

    fn validate_hedge(&self, some_idempotent: bool) -> Result<(), InvalidSetting> {
        let Some(hedge) = self.hedge else {
            return Ok(());
        };
        let expected = if self.max_attempts < 2 {
            "a second attempt needs retry_max of at least 2"
        } else if !some_idempotent {
            "only idempotent methods are hedged, and none is declared"
        } else {
            let is_too_long = |delay| self.timeout.is_some_and(|timeout| delay >= timeout);
            match hedge {
                Hedge::After(delay) if delay.is_zero() || is_too_long(delay) => {
                    "the delay must be greater than zero and less than retry_timeout"
                }
                Hedge::Each(delay) if is_too_long(delay) => {
                    "the delay must be less than retry_timeout"
                }
                Hedge::After(_) | Hedge::Each(_) | Hedge::Percentile95 => return Ok(()),
            }
        };
        Err(InvalidSetting::new("hedge", format!("{hedge:?}"), expected))
    }
}

/// True for a path such as `/package.Service/Method` with valid protobuf names.
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
            timeout: None,
            attempt_timeout: None,
            learn_attempt_timeout: true,
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
            elsewhere_at_once: true,
        }
    }
}
