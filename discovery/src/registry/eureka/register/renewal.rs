//! Keeps a registration: renews its lease, and finds out that the entry is another's.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{lease::Lease, own_entry::OwnEntry};
use crate::{error::chain, registry::RegistryError};

/// The time for which Eureka's response cache may keep a list that lacks the entry
/// (`eureka.server.response-cache-auto-expiration-in-seconds`, 180 by default).
///
/// A registration drops the cached list of the application. A list that is being computed at that moment,
/// because it was requested, is cached nevertheless, and lacks the entry. So the registration is repeated
/// in this time, less and less often.
const CACHED: Duration = Duration::from_secs(180);

/// Renews the entry until it is lost, or no peer can be asked.
pub(super) async fn keep(entry: &OwnEntry, lease: Lease) -> RegistryError {
    let since = Instant::now();
    let mut beats = 0_u32;
    loop {
        beats = beats.saturating_add(1);
        // Instances that were started together do not renew together.
        sleep(lease.beat().mul_f64(0.9 + 0.1 * fastrand::f64())).await;
        // A stalled connection is given up with its request. The second request has another.
        let limit = lease.beat() / 2;
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
