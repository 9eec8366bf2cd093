//! Exponential backoff with jitter.

use std::time::Duration;

use fastrand::Rng;

use crate::error::InvalidSetting;

/// Exponential backoff with jitter.
///
/// The delay grows by a factor with every failure in a row, up to a ceiling. Jitter of 20 % in both
/// directions, as in gRPC's connection backoff, keeps clients that failed together from retrying together.
///
/// The caller counts the failures and supplies the randomness.
///
/// ```
/// use std::time::Duration;
/// use discovery::Backoff;
///
/// let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// assert!(backoff.validate().is_ok());
/// let delay = backoff.after(2, &mut fastrand::Rng::with_seed(1));
/// assert!((160..=240).contains(&delay.as_millis()));
/// assert!(backoff.with_first(Duration::from_secs(2)).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Backoff {
    /// Delay after the first failure, before jitter. Greater than zero, at most
    /// [`ceiling`](Self::ceiling).
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub first: Duration,
    /// Maximum delay, before jitter.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub ceiling: Duration,
    /// Factor from one delay to the next; greater than zero. Default: 2.
    pub multiplier: f64,
}

impl Backoff {
    /// A backoff from `first` to `ceiling`, doubling.
    #[must_use]
    pub const fn new(first: Duration, ceiling: Duration) -> Self {
        Self {
            first,
            ceiling,
            multiplier: 2.0,
        }
    }

    /// Sets [`first`](Self::first).
    #[must_use]
    pub const fn with_first(mut self, delay: Duration) -> Self {
        self.first = delay;
        self
    }

    /// Sets [`ceiling`](Self::ceiling).
    #[must_use]
    pub const fn with_ceiling(mut self, delay: Duration) -> Self {
        self.ceiling = delay;
        self
    }

    /// Sets [`multiplier`](Self::multiplier).
    #[must_use]
    pub const fn with_multiplier(mut self, factor: f64) -> Self {
        self.multiplier = factor;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// If [`multiplier`](Self::multiplier) is not a number above zero, or if [`first`](Self::first) is zero
    /// or greater than [`ceiling`](Self::ceiling).
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let Self {
            first,
            ceiling,
            multiplier,
        } = self;
        if !multiplier.is_finite() || *multiplier <= 0.0 {
            return Err(InvalidSetting::new(
                "backoff",
                format!("multiplied by {multiplier}"),
                "the multiplier must be a number greater than zero",
            ));
        }
        if !first.is_zero() && first <= ceiling {
            return Ok(());
        }
        Err(InvalidSetting::new(
            "backoff",
            format!("{first:?} to {ceiling:?}"),
            "the first delay must be greater than zero and at most the ceiling",
        ))
    }

    /// The delay after `failures` failures in a row, with jitter.
    #[must_use]
    pub fn after(&self, failures: u32, rng: &mut Rng) -> Duration {
        let steps = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let delay = self.first.as_secs_f64() * self.multiplier.powi(steps);
        let jitter = 0.8 + 0.4 * rng.f64();
        // `Duration::mul_f64` panics on overflow.
        Duration::try_from_secs_f64(delay.min(self.ceiling.as_secs_f64()) * jitter)
            .unwrap_or(Duration::MAX)
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
                let delay = backoff.after(failures, &mut rng);
                let base = Duration::from_millis(base);
                assert!(
                    delay >= base.mul_f64(0.8) && delay <= base.mul_f64(1.2),
                    "{delay:?}"
                );
            }
        }
    }

    #[test]
    fn the_multiplier_is_the_factor_between_delays() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut rng = Rng::with_seed(7);
        for (multiplier, failures, millis) in [(3.0, 2, 300), (1.0, 9, 100), (0.5, 3, 25)] {
            let delay = backoff
                .with_multiplier(multiplier)
                .after(failures, &mut rng);
            let base = Duration::from_millis(millis);
            assert!(
                delay >= base.mul_f64(0.79) && delay <= base.mul_f64(1.21),
                "{delay:?}"
            );
        }
        for multiplier in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = backoff.with_multiplier(multiplier).validate().unwrap_err();
            assert!(error.to_string().contains("multiplied by"), "{error}");
        }
    }

    #[test]
    fn delays_differ() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut rng = Rng::with_seed(7);
        let delays: std::collections::BTreeSet<_> =
            (0..100).map(|_| backoff.after(1, &mut rng)).collect();
        assert!(delays.len() > 90);
    }

    #[test]
    fn the_longest_delay_does_not_overflow() {
        let backoff = Backoff::new(Duration::MAX, Duration::MAX);
        let mut rng = Rng::with_seed(7);
        for _ in 0..100 {
            assert!(backoff.after(1, &mut rng) >= Duration::MAX.mul_f64(0.79));
        }
    }

    #[test]
    fn the_first_delay_is_positive_and_at_most_the_ceiling() {
        let second = Duration::from_secs(1);
        assert_eq!(Backoff::new(second, second).validate(), Ok(()));
        for (first, value) in [(Duration::ZERO, "0ns to 1s"), (2 * second, "2s to 1s")] {
            let error = Backoff::new(first, second).validate().unwrap_err();
            assert_eq!(error.setting, "backoff");
            assert_eq!(error.value, value);
        }
    }
}
