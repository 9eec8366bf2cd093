//! The time at which an endpoint that joined a running set began to receive calls.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// It is of the first set: it does not warm up.
const OF_FIRST_SET: u64 = 0;
/// It has joined, and receives no calls yet.
const JOINED: u64 = 1;

/// See the [module](self). One atomic word: one of the constants above, or two more than the milliseconds
/// from the endpoint's birth to its beginning.
#[derive(Debug, Default)]
pub(super) struct Joined(AtomicU64);

impl Joined {
    /// Notes that it joins a running set.
    pub(super) fn note(&self) {
        self.0.store(JOINED, Ordering::Relaxed);
    }

    /// Notes that it may be picked at this age. Only the first time counts.
    pub(super) fn begin(&self, age: Duration) {
        let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX - 2);
        // Fails if it has begun, or is of the first set.
        let _begun =
            self.0
                .compare_exchange(JOINED, millis + 2, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The time since its beginning at this age; `None` if it is of the first set. Zero before its
    /// beginning.
    pub(super) fn passed(&self, age: Duration) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            OF_FIRST_SET => None,
            JOINED => Some(Duration::ZERO),
            begun => Some(age.saturating_sub(Duration::from_millis(begun - 2))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_begins_once_and_only_for_those_that_join() {
        let second = Duration::from_secs(1);
        let joined = Joined::default();
        joined.begin(second);
        assert_eq!(joined.passed(second), None);
        joined.note();
        assert_eq!(joined.passed(3 * second), Some(Duration::ZERO));
        joined.begin(3 * second);
        joined.begin(4 * second);
        assert_eq!(joined.passed(5 * second), Some(2 * second));
    }
}
