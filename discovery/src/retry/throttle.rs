//! The limit of retries: the budget of this crate, or the token bucket of gRPC's service config.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use super::budget::{Budget, BudgetPolicy};

/// Amounts are in thousandths of a token, as in gRFC A6.
const TOKEN: i64 = 1_000;

/// The settings of gRPC's retry throttling (gRFC A6).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ThrottlePolicy {
    /// Tokens of a full bucket.
    pub(crate) max_tokens: u32,
    /// Tokens that a successful call returns.
    pub(crate) token_ratio: f64,
}

/// gRPC's token bucket: a failure takes a token, and retries are made while more than half are left.
#[derive(Debug)]
pub(crate) struct Throttle {
    max: i64,
    ratio: i64,
    tokens: AtomicI64,
}

impl Throttle {
    fn new(policy: ThrottlePolicy) -> Self {
        let max = i64::from(policy.max_tokens) * TOKEN;
        #[allow(clippy::cast_possible_truncation, reason = "at most 1000 tokens")]
        let ratio = (policy.token_ratio * 1_000.0) as i64;
        Self {
            max,
            ratio,
            tokens: AtomicI64::new(max),
        }
    }

    fn add(&self, amount: i64) {
        // A full bucket is not written to, so that its cache line stays shared.
        if amount > 0 && self.tokens.load(Ordering::Relaxed) >= self.max {
            return;
        }
        let change = |tokens: i64| Some((tokens + amount).clamp(0, self.max));
        // The closure always returns a value.
        let _changed = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    /// The failures after which retries end.
    fn left(&self) -> u32 {
        let left = (self.tokens.load(Ordering::Relaxed) - self.max / 2).max(0) / TOKEN;
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    fn allows(&self) -> bool {
        self.tokens.load(Ordering::Relaxed) > self.max / 2
    }
}

/// The limit of a channel's retries and hedges.
#[derive(Debug)]
pub(crate) enum RetryLimit {
    Budget(Budget),
    Throttle(Throttle),
}

/// The settings of a [`RetryLimit`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LimitPolicy {
    Budget(BudgetPolicy),
    #[cfg_attr(
        not(feature = "service-config"),
        allow(dead_code, reason = "only a config has it")
    )]
    Throttle(ThrottlePolicy),
}

impl RetryLimit {
    pub(crate) fn new(policy: LimitPolicy, now: Instant) -> Self {
        match policy {
            LimitPolicy::Budget(policy) => Self::Budget(Budget::new(policy, now)),
            LimitPolicy::Throttle(policy) => Self::Throttle(Throttle::new(policy)),
        }
    }

    /// The retries that it allows now, if no call succeeds meanwhile.
    pub(crate) fn tokens(&self, now: Instant) -> u32 {
        match self {
            Self::Budget(budget) => budget.tokens(now),
            Self::Throttle(throttle) => throttle.left(),
        }
    }

    /// Notes a successful call.
    pub(crate) fn succeeded(&self, now: Instant) {
        match self {
            Self::Budget(budget) => budget.deposit(now),
            Self::Throttle(throttle) => throttle.add(throttle.ratio),
        }
    }

    /// Notes a failure of a kind that is retried, after which no attempt is left.
    pub(crate) fn failed(&self) {
        if let Self::Throttle(throttle) = self {
            throttle.add(-TOKEN);
        }
    }

    /// Notes a failure of a kind that is retried. True if the retry may be made.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        match self {
            Self::Budget(budget) => budget.withdraw(now),
            Self::Throttle(throttle) => {
                throttle.add(-TOKEN);
                throttle.allows()
            }
        }
    }

    /// True if an attempt may be made beside one that has not failed.
    pub(crate) fn withdraw_for_hedge(&self, now: Instant) -> bool {
        match self {
            Self::Budget(budget) => budget.withdraw(now),
            Self::Throttle(throttle) => throttle.allows(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stop_at_half_of_the_tokens_and_resume_after_successes() {
        let policy = ThrottlePolicy {
            max_tokens: 10,
            token_ratio: 0.5,
        };
        let now = Instant::now();
        let limit = RetryLimit::new(LimitPolicy::Throttle(policy), now);
        for _ in 0..4 {
            assert!(limit.withdraw(now));
        }
        assert!(!limit.withdraw(now), "five of ten tokens are left");
        assert!(!limit.withdraw_for_hedge(now));
        limit.succeeded(now);
        assert!(limit.withdraw_for_hedge(now), "a hedge takes no token");
        assert!(limit.withdraw_for_hedge(now));
        limit.failed();
        assert!(!limit.withdraw_for_hedge(now));
        for _ in 0..100 {
            limit.failed();
        }
        // The bucket does not go below empty: ten successes and one more allow a retry.
        for _ in 0..10 {
            limit.succeeded(now);
            assert!(!limit.withdraw_for_hedge(now));
        }
        limit.succeeded(now);
        assert!(limit.withdraw_for_hedge(now));
    }
}
