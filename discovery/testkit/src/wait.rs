//! Waiting for a condition, bounded.

use std::{fmt::Debug, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Between two looks: short beside anything that is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is an `Ok`, and gives it with the time that took.
///
/// # Errors
///
/// When there is none within `limit`, with the last thing seen instead.
pub async fn eventually<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<(T, Duration)> {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return Ok((seen, begun.elapsed())),
            Err(seen) if begun.elapsed() >= limit => {
                bail!("{what}: not within {limit:?}; last seen: {seen:?}")
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}
