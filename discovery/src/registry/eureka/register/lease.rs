//! The lease of a registration: Eureka removes an entry that is no longer renewed.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::own_entry::OwnEntry;
use crate::{error::chain, registry::RegistryError};

/// The renewals in the time after which the lease ends without one.
const BEATS: u32 = 3;

/// The time for which Eureka's response cache may keep a list that lacks the entry
/// (`eureka.server.response-cache-auto-expiration-in-seconds`, 180 by default).
///
/// A registration drops the cached list of the application. A list that is being computed at that moment,
/// because it was requested, is cached nevertheless, and lacks the entry. So the registration is repeated
/// in this time, less and less often.
const CACHED: Duration = Duration::from_secs(180);

/// The time of a lease, and how it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// Half of the time after which the lease ends without a renewal, in whole seconds.
    ///
    /// Eureka adds a lease's duration to the time of each renewal, and once more when it looks for expired
    /// leases: an entry expires after twice its duration. `com.netflix.eureka.lease.Lease` says that this
    /// will not be fixed, because clients rely on it. A server without that fault would end the lease
    /// after this half, which is longer than the time between two renewals.
    half: Duration,
}

impl Lease {
    /// A lease that ends after `time` without a renewal, rounded up to an even number of seconds.
    pub(super) fn new(time: Duration) -> Self {
        let half = time / 2;
        let more = u64::from(half.subsec_nanos() > 0);
        Self {
            half: Duration::from_secs(half.as_secs() + more),
        }
    }

    /// The duration as it is registered.
    pub(super) fn duration(self) -> Duration {
        self.half
    }

    /// The time between two renewals.
    pub(super) fn beat(self) -> Duration {
        self.half * 2 / BEATS
    }

    /// Renews the entry until it is lost, or no peer can be asked.
    pub(super) async fn keep(self, entry: &OwnEntry) -> RegistryError {
        let since = Instant::now();
        let mut beats = 0_u32;
        loop {
            beats = beats.saturating_add(1);
            // Instances that were started together do not renew together.
            sleep(self.beat().mul_f64(0.9 + 0.1 * fastrand::f64())).await;
            // A stalled connection is given up with its request. The second request has another.
            let limit = self.beat() / 2;
            let mut renewed = entry.renew(Some(limit)).await;
            if matches!(renewed, Err(RegistryError::Unreachable { .. })) {
                renewed = entry.renew(Some(limit)).await;
            }
            if let Err(lost) = renewed {
                return lost;
            }
            match entry.verify(limit).await {
                Ok(None) => {}
                Ok(Some(overwritten)) => return overwritten,
                // The lease is renewed, so this can wait for the next time.
                Err(error) => debug!("{}", chain(&error)),
            }
            if beats.is_power_of_two()
                && since.elapsed() < CACHED
                && let Err(error) = entry.repeat(limit).await
            {
                return error;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_registered_with_half_its_time() {
        for (millis, seconds) in [(2000, 1), (2001, 2), (4000, 2), (5000, 3), (30_000, 15)] {
            let lease = Lease::new(Duration::from_millis(millis));
            assert_eq!(lease.duration(), Duration::from_secs(seconds), "{millis}");
            // Also in time for a server that ends the lease after its duration.
            assert!(lease.beat() < lease.duration());
        }
    }
}
