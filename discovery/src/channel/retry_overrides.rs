//! The settings of the retry policy that a builder was given one by one.

use std::{collections::HashSet, time::Duration};

use crate::retry::{Hedge, RetryPolicy};

/// Settings of the retry policy that were given one by one.
#[derive(Default)]
pub(super) struct RetryOverrides {
    pub(super) max_attempts: Option<u32>,
    pub(super) timeout: Option<Duration>,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) idempotent: HashSet<String>,
    pub(super) hedge: Option<Hedge>,
}

impl RetryOverrides {
    pub(super) fn apply(self, mut policy: RetryPolicy) -> RetryPolicy {
        policy.max_attempts = self.max_attempts.unwrap_or(policy.max_attempts);
        policy.timeout = self.timeout.or(policy.timeout);
        policy.attempt_timeout = self.attempt_timeout.or(policy.attempt_timeout);
        policy.hedge = self.hedge.or(policy.hedge);
        policy.idempotent.extend(self.idempotent);
        policy
    }
}
