//! How often Consul is asked again while its answers keep coming: a token bucket.
//!
//! A service that changes 200 times a second would otherwise be downloaded 200 times a second,
//! whole. Consul's own advice is the same: a small burst, then an interval.

use std::time::Duration;

use tokio::time::Instant;

/// The answers that a watch takes without pause after a quiet time: enough for a restarted
/// instance, which leaves, returns critical and turns healthy.
const BURST: u32 = 4;

/// A bucket that fills by one token each interval. Pure: the caller brings the time.
#[derive(Debug)]
pub(super) struct TokenBucket {
    interval: Duration,
    /// When the bucket is (or was) full again.
    full_at: Option<Instant>,
}

impl TokenBucket {
    pub(super) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            full_at: None,
        }
    }

    /// Takes a token; the time to wait until it is there.
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
