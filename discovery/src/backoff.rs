//! Exponential backoff with jitter: how long to wait before trying again.
//!
//! The wait doubles with every failure up to a ceiling and is then spread by a fifth either way, as
//! gRPC's connection backoff does, so that clients that failed together do not return together.

use std::time::Duration;

use fastrand::Rng;

/// A schedule of growing waits. Pure: the caller counts the failures and brings the randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure, before jitter.
    pub first: Duration,
    /// No wait is longer, before jitter.
    pub ceiling: Duration,
}

impl Backoff {
    /// A schedule from `first` to `ceiling`.
    #[must_use]
    pub const fn new(first: Duration, ceiling: Duration) -> Self {
        Self { first, ceiling }
    }

    /// The wait after `failures` failures in a row, with a fifth of jitter either way.
    #[must_use]
    pub fn after(&self, failures: u32, rng: &mut Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let wait = self.first.saturating_mul(1 << doublings).min(self.ceiling);
        wait.mul_f64(0.8 + 0.4 * rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_ceiling_within_a_fifth() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut rng = Rng::with_seed(7);
        for (failures, base) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (4, 800),
            (5, 1000),
            (u32::MAX, 1000),
        ] {
            for _ in 0..100 {
                let wait = backoff.after(failures, &mut rng);
                let base = Duration::from_millis(base);
                assert!(
                    wait >= base.mul_f64(0.8) && wait <= base.mul_f64(1.2),
                    "{wait:?}"
                );
            }
        }
    }

    #[test]
    fn is_spread() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut rng = Rng::with_seed(7);
        let waits: std::collections::BTreeSet<_> =
            (0..100).map(|_| backoff.after(1, &mut rng)).collect();
        assert!(waits.len() > 90);
    }
}
