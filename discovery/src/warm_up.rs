//! The share of its calls that an endpoint receives while it warms up: in the slow start after an
//! ejection, and after it joined a running set.

use std::time::Duration;

use crate::error::InvalidSetting;

/// How the share of an instance grows that joins a running set.
///
/// A new process has cold caches, empty pools and, on some platforms, code that is not compiled yet.
/// For the time of [`window`](Self::window) it receives a part of the calls that its balancer would
/// give it (Envoy's slow start, gRFC A100). After `passed` of the window, that part is
///
/// ```text
/// max(min_share, (passed / window) ^ (1 / aggression))
/// ```
///
/// It holds for every balancer, and not for calls that [say where they go](crate::CallOptions). The time
/// begins with the first connection. Instances of the first set that a registry answers with do not warm up,
/// and neither do all instances of a set at once: parts count relative to the greatest. A connection that is
/// made again does not begin another window; an instance that is deregistered and registered again does.
///
/// Off by default, as in Envoy and gRPC: while new instances warm up, the others receive more calls, which
/// a set that grows because it is overloaded cannot bear.
///
/// ```
/// use std::time::Duration;
/// use discovery::WarmUp;
///
/// let warm_up = WarmUp::over(Duration::from_secs(30)).with_min_share(0.2);
/// assert!(warm_up.validate().is_ok());
/// assert!(warm_up.with_aggression(0.0).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WarmUp {
    /// Time until an instance receives its full share; zero turns the warm-up off. Default: zero.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub window: Duration,
    /// Speed of the growth; greater than zero. 1 is linear, above 1 grows faster at first, below 1
    /// slower. Default: 1, as in gRFC A100.
    pub aggression: f64,
    /// Least part of its share that an instance receives, from 0 to 1. Default: 0.1, as in gRFC A100.
    pub min_share: f64,
}

impl WarmUp {
    /// A linear warm-up over this time.
    #[must_use]
    pub fn over(window: Duration) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// Sets [`aggression`](Self::aggression).
    #[must_use]
    pub fn with_aggression(mut self, aggression: f64) -> Self {
        self.aggression = aggression;
        self
    }

    /// Sets [`min_share`](Self::min_share).
    #[must_use]
    pub fn with_min_share(mut self, share: f64) -> Self {
        self.min_share = share;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        if !(self.aggression.is_finite() && self.aggression > 0.0) {
            return Err(InvalidSetting::new(
                "warm_up aggression",
                self.aggression.to_string(),
                "must be greater than 0",
            ));
        }
        if !(0.0..=1.0).contains(&self.min_share) {
            return Err(InvalidSetting::new(
                "warm_up min_share",
                self.min_share.to_string(),
                "must be between 0 and 1",
            ));
        }
        Ok(())
    }

    /// The part of its share that an endpoint receives this long after its beginning; `None` after the
    /// window.
    pub(crate) fn share(&self, passed: Duration) -> Option<f64> {
        (passed < self.window).then(|| {
            let part = passed.as_secs_f64() / self.window.as_secs_f64();
            part.powf(1.0 / self.aggression).max(self.min_share)
        })
    }
}

impl Default for WarmUp {
    fn default() -> Self {
        Self {
            window: Duration::ZERO,
            aggression: 1.0,
            min_share: 0.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_from_its_minimum_to_all_over_the_window() {
        let seconds = Duration::from_secs_f64;
        let linear = WarmUp::over(seconds(10.0));
        let fast = linear.with_aggression(2.0);
        let slow = linear.with_aggression(0.5).with_min_share(0.0);
        for (policy, passed, expected) in [
            (linear, 0.0, Some(0.1)),
            (linear, 0.9, Some(0.1)),
            (linear, 5.0, Some(0.5)),
            (linear, 9.9, Some(0.99)),
            (linear, 10.0, None),
            (fast, 2.5, Some(0.5)),
            (slow, 0.0, Some(0.0)),
            (slow, 5.0, Some(0.25)),
            (WarmUp::default(), 0.0, None),
        ] {
            let share = policy.share(seconds(passed));
            let close = |(seen, expected): (f64, f64)| (seen - expected).abs() < 1e-9;
            assert_eq!(share.is_some(), expected.is_some(), "{policy:?} {passed}");
            assert!(
                share.zip(expected).is_none_or(close),
                "{policy:?} {share:?}"
            );
        }
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let policy = WarmUp::over(Duration::from_secs(1));
        for (policy, message) in [
            (
                policy.with_aggression(0.0),
                "warm_up aggression is 0: must be",
            ),
            (
                policy.with_aggression(f64::NAN),
                "warm_up aggression is NaN",
            ),
            (
                policy.with_min_share(1.5),
                "warm_up min_share is 1.5: must be",
            ),
            (policy.with_min_share(f64::NAN), "warm_up min_share is NaN"),
        ] {
            let error = policy.validate().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
