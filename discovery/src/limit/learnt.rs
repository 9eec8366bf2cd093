//! The rule of a learnt limit: a pure function of what was seen of the calls, window by window.

use std::time::Duration;

use crate::error::InvalidSetting;

/// The factor of the limit for a window with calls that were lost to overload, as for a lost packet in TCP,
/// but smaller: a window has many calls.
const BACKOFF: f64 = 0.9;
/// The least factor of the limit in one window without such calls.
const LEAST_GRADIENT: f64 = 0.5;
/// The weight of the latest window.
const SMOOTHING: f64 = 0.5;
/// Part of the limit up to which the concurrency is low, and which a look allows. Looks at half of it would
/// not find the baseline of a limit that is more than twice too high.
const LOW: f64 = 1.0 / 3.0;
/// Part of the limit up to which its use says nothing about it.
const UNUSED: f64 = 0.5;
/// The weight of a latency above the baseline, at low concurrency. One below replaces it.
const RISE: f64 = 0.5;
/// Time of use after which the limit is lowered for a look at the latency there. BBR
/// looks every ten seconds (Cardwell et al., 2016).
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Maximum number of windows of a look: long calls may keep the concurrency high.
const LOOK_WINDOWS: u32 = 3;

/// The settings of a learnt limit.
///
/// ```
/// use discovery::limit::LearntLimit;
///
/// let settings = LearntLimit::default().with_initial(50).with_min(10);
/// assert!(settings.validate().is_ok());
/// assert!(settings.with_max(20).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LearntLimit {
    /// The limit at the start. Default: 20, as Netflix's.
    pub initial: u32,
    /// The least limit; at least 1. Default: 4.
    pub min: u32,
    /// The greatest limit. Default: 1 000.
    pub max: u32,
    /// Factor of the latency at low concurrency up to which a latency is not a sign of overload; at
    /// least 1. A larger one lets more calls queue, and takes less noise for overload. Default: 1.5,
    /// as Netflix's.
    pub tolerance: f64,
}

impl Default for LearntLimit {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 4,
            max: 1_000,
            tolerance: 1.5,
        }
    }
}

impl LearntLimit {
    /// Sets [`initial`](Self::initial).
    #[must_use]
    pub fn with_initial(mut self, limit: u32) -> Self {
        self.initial = limit;
        self
    }

    /// Sets [`min`](Self::min).
    #[must_use]
    pub fn with_min(mut self, limit: u32) -> Self {
        self.min = limit;
        self
    }

    /// Sets [`max`](Self::max).
    #[must_use]
    pub fn with_max(mut self, limit: u32) -> Self {
        self.max = limit;
        self
    }

    /// Sets [`tolerance`](Self::tolerance).
    #[must_use]
    pub fn with_tolerance(mut self, factor: f64) -> Self {
        self.tolerance = factor;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        if self.min == 0 {
            let setting = "concurrency_limit min";
            return Err(InvalidSetting::new(setting, "0", "must be at least 1"));
        }
        if self.min > self.initial || self.initial > self.max {
            return Err(InvalidSetting::new(
                "concurrency_limit initial",
                self.initial.to_string(),
                "must be from min to max",
            ));
        }
        if self.tolerance >= 1.0 && self.tolerance.is_finite() {
            return Ok(());
        }
        Err(InvalidSetting::new(
            "concurrency_limit tolerance",
            self.tolerance.to_string(),
            "must be a number of at least 1",
        ))
    }
}

/// What was seen of the calls that ended within some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// Calls whose latency is known.
    pub calls: u32,
    /// The sum of their latencies.
    pub latency: Duration,
    /// The most calls that were under way at the same time.
    pub most: u32,
    /// Calls that were lost to overload: refused, or without an answer in time.
    pub lost: u32,
}

impl Window {
    /// A window without lost calls.
    #[must_use]
    pub fn new(calls: u32, latency: Duration, most: u32) -> Self {
        Self {
            calls,
            latency,
            most,
            lost: 0,
        }
    }

    /// Sets [`lost`](Self::lost).
    #[must_use]
    pub fn with_lost(mut self, calls: u32) -> Self {
        self.lost = calls;
        self
    }
}

/// A learnt limit. The time is a parameter, as the time since any fixed moment.
///
/// The latency while at most a third of the limit is used is the baseline. While more than half is used,
/// each window multiplies the limit by `tolerance * baseline / latency`, which is at most one, and adds its square
/// root. So it grows while the latency stays near the baseline, and settles at about `tolerance` times
/// the concurrency from which on the latency rises. A limit of which half is not used does not change:
/// then nothing is refused, and the latency says nothing about more calls.
///
/// If more than half is used for five seconds, the limit is lowered to a third for a moment to see the
/// baseline, which may have risen or was never seen.
///
/// ```
/// use std::time::Duration;
/// use discovery::limit::{LearntLimit, Learnt, Window};
///
/// let mut limit = Learnt::new(LearntLimit::default());
/// // Twenty calls of 10 ms each, all at the same time: there is room for more.
/// limit.update(Duration::from_millis(100), Window::new(200, Duration::from_secs(2), 20));
/// assert!(limit.limit() > 20);
/// ```
#[derive(Clone, Debug)]
pub struct Learnt {
    settings: LearntLimit,
    limit: f64,
    /// The latency at low concurrency, in seconds.
    baseline: Option<f64>,
    /// The last time at which at most half of the limit was used.
    low_at: Duration,
    /// The windows of the current look at the baseline.
    look: Option<u32>,
}

impl Learnt {
    /// The limit at the start. Settings that are not [valid](LearntLimit::validate) are not checked
    /// here.
    #[must_use]
    pub fn new(settings: LearntLimit) -> Self {
        Self {
            settings,
            limit: settings.initial.into(),
            baseline: None,
            low_at: Duration::ZERO,
            look: None,
        }
    }

    pub(crate) fn settings(&self) -> LearntLimit {
        self.settings
    }

    /// The calls that may be under way at the same time; at least 1.
    #[must_use]
    pub fn limit(&self) -> u32 {
        let limit = if self.look.is_some() {
            // Rounded down, so that the concurrency is low.
            (self.limit * LOW).floor()
        } else {
            self.limit.round()
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 1 to the greatest limit"
        )]
        let limit = limit as u32;
        limit.max(1)
    }

    /// Learns from a window that ends at this time.
    pub fn update(&mut self, now: Duration, window: Window) {
        let used = f64::from(window.most) / self.limit;
        let is_low = used <= LOW || window.most <= 1;
        if window.lost > 0 {
            self.set(self.limit * BACKOFF);
        } else if window.calls > 0 {
            let latency = window.latency.as_secs_f64() / f64::from(window.calls);
            if is_low {
                self.see_baseline(latency);
            } else if self.look.is_none() && used > UNUSED {
                self.follow(latency);
            }
        }
        if used <= UNUSED {
            // Nothing is refused, so there is nothing to find out.
            self.low_at = now;
        }
        if is_low {
            self.low_at = now;
            self.look = None;
        } else if let Some(windows) = self.look {
            self.look = (windows < LOOK_WINDOWS).then_some(windows + 1);
            if self.look.is_none() {
                self.low_at = now;
            }
        } else if now.saturating_sub(self.low_at) >= LOOK_EVERY {
            self.look = Some(1);
        }
    }

    fn see_baseline(&mut self, latency: f64) {
        self.baseline = Some(match self.baseline {
            Some(baseline) if latency > baseline => baseline + RISE * (latency - baseline),
            _ => latency,
        });
    }

    fn follow(&mut self, latency: f64) {
        let baseline = self
            .baseline
            .map_or(latency, |baseline| baseline.min(latency));
        self.baseline = Some(baseline);
        let gradient = if latency > 0.0 {
            (self.settings.tolerance * baseline / latency).clamp(LEAST_GRADIENT, 1.0)
        } else {
            1.0
        };
        let next = self.limit * gradient + self.limit.sqrt();
        self.set(self.limit + SMOOTHING * (next - self.limit));
    }

    fn set(&mut self, limit: f64) {
        let (min, max) = (self.settings.min.into(), self.settings.max.into());
        self.limit = limit.max(min).min(max);
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(100);

    /// A server that processes so many calls at a time, each in `service` seconds; more share its time.
    struct Server {
        workers: u32,
        service: f64,
        /// Share by which a window's latency varies.
        noise: f64,
    }

    struct Simulated {
        limit: Learnt,
        now: Duration,
        rng: Rng,
        /// Calls that were refused.
        refused: u32,
    }

    impl Simulated {
        fn new(settings: LearntLimit) -> Self {
            Self {
                limit: Learnt::new(settings),
                now: Duration::ZERO,
                rng: Rng::with_seed(7),
                refused: 0,
            }
        }

        /// So many callers that call again and again, over so many seconds.
        fn run(&mut self, server: &Server, callers: u32, seconds: u32) -> u32 {
            for _ in 0..seconds * 10 {
                self.now += WINDOW;
                let under_way = callers.min(self.limit.limit());
                self.refused += callers - under_way;
                let crowd = f64::from(under_way) / f64::from(server.workers);
                let noise = 1.0 + server.noise * (2.0 * self.rng.f64() - 1.0);
                let latency = server.service * crowd.max(1.0) * noise;
                let calls = f64::from(under_way) * WINDOW.as_secs_f64() / latency;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let calls = (calls as u32).max(1);
                let window = Window::new(
                    calls,
                    Duration::from_secs_f64(latency * f64::from(calls)),
                    under_way,
                );
                self.limit.update(self.now, window);
            }
            self.limit.limit()
        }
    }

    fn server(workers: u32) -> Server {
        Server {
            workers,
            service: 0.01,
            noise: 0.1,
        }
    }

    /// The limit settles where the latency begins to rise, and not far above.
    fn is_near_the_knee(limit: u32, workers: u32) -> bool {
        limit >= workers && f64::from(limit) <= 2.2 * f64::from(workers) + 4.0
    }

    #[test]
    fn under_overload_the_limit_settles_near_the_concurrency_that_the_server_can_process() {
        for workers in [4, 16, 64, 200] {
            for initial in [4, 20, 400] {
                let settings = LearntLimit::default().with_initial(initial);
                let mut simulated = Simulated::new(settings);
                simulated.run(&server(workers), 2_000, 60);
                // It stays there, apart from looks at the baseline.
                for _ in 0..20 {
                    simulated.run(&server(workers), 2_000, 1);
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    let limit = simulated.limit.limit.round() as u32;
                    assert!(
                        is_near_the_knee(limit, workers),
                        "{limit} for {workers} workers from {initial}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_server_with_room_refuses_nothing_after_the_first_moments() {
        for callers in [1, 10, 60, 190] {
            let mut simulated = Simulated::new(LearntLimit::default());
            simulated.run(&server(200), callers, 10);
            simulated.refused = 0;
            simulated.run(&server(200), callers, 600);
            assert_eq!(simulated.refused, 0, "of {callers} callers");
        }
    }

    #[test]
    fn the_limit_follows_a_server_that_becomes_smaller_and_recovers() {
        let mut simulated = Simulated::new(LearntLimit::default());
        for workers in [64, 8, 64] {
            simulated.run(&server(workers), 2_000, 60);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let limit = simulated.limit.limit.round() as u32;
            assert!(is_near_the_knee(limit, workers), "{limit} for {workers}");
        }
    }

    #[test]
    fn a_method_that_becomes_ten_times_slower_everywhere_does_not_keep_the_limit_low() {
        let mut simulated = Simulated::new(LearntLimit::default());
        simulated.run(&server(64), 2_000, 30);
        let slow = Server {
            service: 0.1,
            ..server(64)
        };
        simulated.run(&slow, 2_000, 90);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let limit = simulated.limit.limit.round() as u32;
        assert!(is_near_the_knee(limit, 64), "{limit}");
    }

    #[test]
    fn lost_calls_lower_the_limit_whatever_the_latency() {
        let mut limit = Learnt::new(LearntLimit::default().with_initial(100));
        let window = Window::new(100, Duration::from_millis(100), 100);
        for second in 1..=3 {
            limit.update(WINDOW * second, window.with_lost(1));
        }
        assert_eq!(limit.limit(), 73);
        for second in 4..=100 {
            limit.update(WINDOW * second, window.with_lost(1));
        }
        // A look at the baseline lowers it.
        assert!((1..=4).contains(&limit.limit()), "{}", limit.limit());
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let settings = LearntLimit::default;
        for (settings, reason) in [
            (settings().with_min(0), "concurrency_limit min is 0"),
            (settings().with_min(21), "concurrency_limit initial is 20"),
            (settings().with_max(19), "concurrency_limit initial is 20"),
            (
                settings().with_tolerance(0.9),
                "concurrency_limit tolerance is 0.9",
            ),
            (
                settings().with_tolerance(f64::NAN),
                "concurrency_limit tolerance is NaN",
            ),
        ] {
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
