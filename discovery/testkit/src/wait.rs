//! Waiting for a condition, for a limited time.

use std::{convert::Infallible, fmt::Debug, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Pause between two looks: short compared with anything that tests wait for.
const PAUSE: Duration = Duration::from_millis(10);

/// The result of one look at a condition: a `bool`, an `Option` or a `Result`.
pub trait Look {
    /// The value once the condition holds.
    type Found;
    /// The description of what was seen instead.
    type Seen: Debug;

    /// `Ok` if the condition holds.
    ///
    /// # Errors
    ///
    /// If it does not, with what was seen instead.
    fn outcome(self) -> Result<Self::Found, Self::Seen>;
}

impl Look for bool {
    type Found = ();
    type Seen = bool;

    fn outcome(self) -> Result<(), bool> {
        if self { Ok(()) } else { Err(self) }
    }
}

impl<T> Look for Option<T> {
    type Found = T;
    type Seen = Option<Infallible>;

    fn outcome(self) -> Result<T, Option<Infallible>> {
        self.ok_or(None)
    }
}

impl<T, E: Debug> Look for Result<T, E> {
    type Found = T;
    type Seen = E;

    fn outcome(self) -> Self {
        self
    }
}

/// Looks again and again until the condition holds. Returns the value and the time that it took.
///
/// # Errors
///
/// When the condition does not hold within `limit`, with what was seen last.
pub async fn eventually<L: Look>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> L,
) -> Result<(L::Found, Duration)> {
    let begun = Instant::now();
    loop {
        match look().await.outcome() {
            Ok(found) => return Ok((found, begun.elapsed())),
            Err(seen) if begun.elapsed() >= limit => {
                bail!("{what}: not within {limit:?}; last seen: {seen:?}")
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_looks_until_the_condition_holds() {
        let mut looks = 0;
        let look = async || {
            looks += 1;
            (looks == 3).then_some("found")
        };
        let (found, took) = eventually("third look", Duration::from_secs(1), look)
            .await
            .unwrap();
        assert_eq!((found, took), ("found", PAUSE * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_and_names_what_it_saw_last() {
        let look = async || Err::<(), _>("still 2 of 3");
        let limit = Duration::from_secs(1);
        let error = eventually("all ready", limit, look).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "all ready: not within 1s; last seen: \"still 2 of 3\""
        );
    }
}
