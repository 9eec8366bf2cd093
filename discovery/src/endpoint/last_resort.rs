//! The state of an endpoint that its registry no longer offers and that is kept as a last resort.

use std::sync::OnceLock;

use tokio::time::Instant;

use crate::instance::Withdrawal;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct LastResort {
    since: Instant,
    withdrawal: Withdrawal,
    ended: OnceLock<&'static str>,
}

impl LastResort {
    pub(crate) fn new(since: Instant, withdrawal: Withdrawal) -> Self {
        Self {
            since,
            withdrawal,
            ended: OnceLock::new(),
        }
    }

    /// The time since which the registry does not offer the instance.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn withdrawal(&self) -> Withdrawal {
        self.withdrawal
    }

    /// Notes that the instance must not be kept any longer. The first reason stays.
    pub(crate) fn end(&self, reason: &'static str) {
        let _first_stays = self.ended.set(reason);
    }

    /// The reason why the instance must not be kept any longer.
    pub(crate) fn ended(&self) -> Option<&'static str> {
        self.ended.get().copied()
    }
}
