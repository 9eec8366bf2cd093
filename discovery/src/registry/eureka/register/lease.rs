//! The lease of a registration: Eureka removes an entry that is no longer renewed.

use std::time::Duration;

/// The renewals in the time after which the lease ends without one.
const BEATS: u32 = 3;

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
