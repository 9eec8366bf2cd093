//! Limits the rate of requests while answers keep coming: a token bucket.
//!
//! Without it, a service that changes 200 times a second would be downloaded 200 times a second.
//! Consul's documentation of blocking queries recommends a rate limit with a small burst.

use std::time::Duration;

use tokio::time::Instant;

/// The requests without pause after a quiet time. Enough for a restarted instance, which is
/// removed, added as critical and turns passing.
const BURST: u32 = 4;

/// A bucket that gains one token per interval. Pure: the caller passes the time.
#[derive(Debug)]
pub(super) struct TokenBucket {
    interval: Duration,
    /// The time when the bucket is full again.
    full_at: Option<Instant>,
}

impl TokenBucket {
    pub(super) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            full_at: None,
        }
    }

    /// Takes a token. Returns the time to wait for it.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.interval;
        self.full_at = Some(full_at);
        (full_at - now).saturating_sub(self.interval * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_one_passes_per_interval() {
        let interval = Duration::from_millis(500);
        let mut requests = TokenBucket::new(interval);
        let mut now = Instant::now();
        let start = now;
        for _ in 0..BURST {
            assert_eq!(requests.take(now), Duration::ZERO);
        }
        for _ in 0..20 {
            now += requests.take(now);
        }
        assert_eq!(now - start, interval * 20);
        now += interval * BURST;
        for _ in 0..BURST {
            assert_eq!(requests.take(now), Duration::ZERO);
        }
        assert!(requests.take(now) > Duration::ZERO);
    }
}
