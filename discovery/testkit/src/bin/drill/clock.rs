//! The time of a row.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The time of a row: the start and the length of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) begun: Instant,
    pub(crate) length: Duration,
}

impl Clock {
    pub(crate) fn now(self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits until this share of the row has passed.
    pub(crate) async fn until(self, share: f64) {
        sleep_until(self.begun + self.length.mul_f64(share)).await;
    }
}
