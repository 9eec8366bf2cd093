//! The settings of outlier ejection.

use std::time::Duration;

use crate::error::InvalidSetting;

/// When to eject an instance, and for how long.
///
/// ```text
///  .----------.   outlier    .---------.   time over, or   .---------.
///  | Admitted | -----------> | Ejected | ----------------> | Probing |
///  '----------'              '---------'   reconnected     '---------'
///       ^                      ^     ^                       |    |
///       |                      |     '----- probe failed ----'    | probe passed
///       |                      |                                  v
///       |                      |                            .-----------.
///       |                      '----- trial call failed --- | Probation |
///       '--- trial call passed, slow start ---------------- '-----------'
/// ```
///
/// | state | calls to the instance |
/// |---|---|
/// | Admitted | its share; after an ejection, a growing part of it ([`slow_start`](Self::slow_start)) |
/// | Ejected | none |
/// | Probing | none; its standard health service is asked |
/// | Probation | one at a time |
///
/// If no instance is admitted, ejected ones receive calls rather than every call failing.
///
/// ```
/// use std::time::Duration;
/// use discovery::EjectionPolicy;
///
/// let policy = EjectionPolicy::default()
///     .with_consecutive_status(3)
///     .with_base_time(Duration::from_secs(1));
/// assert!(policy.validate().is_ok());
/// assert!(policy.with_max_share(2.0).validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EjectionPolicy {
    /// False to eject no instance. Default: true.
    pub enabled: bool,
    /// Number of broken connections and unanswered calls in a row that ejects; 0 turns it off.
    /// Default: 3.
    pub consecutive_transport: u32,
    /// Number of statuses in a row that blame the server and ejects; 0 turns it off. Default: 5, as in
    /// Envoy.
    ///
    /// This run, and the other two, must be longer where the others fail too, so that chance alone makes
    /// one in a hundred million calls: for 2.5 % of failures 5 in a row, for 30 % of failures 16.
    pub consecutive_status: u32,
    /// Number of calls in a row that a hedged attempt elsewhere overtook and ejects; 0 turns it off.
    /// Default: 10, a run that one overtaken call in twenty does not reach by chance.
    pub consecutive_overtaken: u32,
    /// Period over which shares are counted; at least 10 ms. Default: 10 s, as in gRFC A50.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub window: Duration,
    /// Number of calls that an instance needs in the window before its share counts. Default: 5, as in
    /// Linkerd.
    pub min_calls: u32,
    /// Failing share that ejects if it is also three times the share of all others together, by more
    /// than chance; from 0 to 1, and 1 turns it off. Default: 0.2, as in Linkerd.
    ///
    /// It is compared with each second failure, over the time since the failures began, and about every tenth
    /// of the [`window`](Self::window) over the whole of it. At one comparison, an instance that fails like
    /// the others is ejected with a probability of at most one in a hundred thousand (over the window, and
    /// after an ejection, one in a thousand), however often all of them fail. An instance among six that
    /// alone fails 30 % of its calls is ejected after about 27 of them.
    pub failing_share: f64,
    /// Number of instances with [`min_calls`](Self::min_calls) from which failing shares are compared.
    /// Default: 0. gRFC A50 has 5.
    pub failing_share_instances: u32,
    /// Standard deviations below the mean success rate that eject; 0 turns it off. Default: 1.9, as in
    /// gRFC A50.
    pub success_rate_deviations: f64,
    /// Number of instances with [`success_rate_calls`](Self::success_rate_calls) from which success
    /// rates are compared. Default: 5, as in gRFC A50.
    pub success_rate_instances: u32,
    /// Number of calls that an instance needs in the window before its success rate counts.
    /// Default: 100, as in gRFC A50.
    pub success_rate_calls: u32,
    /// Time of a first ejection; the n-th in short order takes n times as long. At most
    /// [`max_time`](Self::max_time). Default: 3 s. gRFC A50 has 30 s, but admits without a probe.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub base_time: Duration,
    /// Longest time of an ejection. Default: 60 s.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub max_time: Duration,
    /// Share of the instances that may be ejected at the same time, from 0 to 1. One always may, but
    /// never all. Default: 0.5. gRFC A50 has 0.1, which is less than one of nine instances.
    pub max_share: f64,
    /// Time over which a returning instance gets from a tenth of its share to all of it.
    /// Default: 5 s.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub slow_start: Duration,
}

impl EjectionPolicy {
    /// Shortest [`window`](Self::window).
    const MIN_WINDOW: Duration = Duration::from_millis(10);

    /// Sets [`enabled`](Self::enabled).
    #[must_use]
    pub fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets [`consecutive_transport`](Self::consecutive_transport).
    #[must_use]
    pub fn with_consecutive_transport(mut self, failures: u32) -> Self {
        self.consecutive_transport = failures;
        self
    }

    /// Sets [`consecutive_status`](Self::consecutive_status).
    #[must_use]
    pub fn with_consecutive_status(mut self, failures: u32) -> Self {
        self.consecutive_status = failures;
        self
    }

    /// Sets [`consecutive_overtaken`](Self::consecutive_overtaken).
    #[must_use]
    pub fn with_consecutive_overtaken(mut self, calls: u32) -> Self {
        self.consecutive_overtaken = calls;
        self
    }

    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`min_calls`](Self::min_calls).
    #[must_use]
    pub fn with_min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// Sets [`failing_share`](Self::failing_share).
    #[must_use]
    pub fn with_failing_share(mut self, share: f64) -> Self {
        self.failing_share = share;
        self
    }

    /// Sets [`failing_share_instances`](Self::failing_share_instances).
    #[must_use]
    pub fn with_failing_share_instances(mut self, instances: u32) -> Self {
        self.failing_share_instances = instances;
        self
    }

    /// Sets [`success_rate_instances`](Self::success_rate_instances).
    #[must_use]
    pub fn with_success_rate_instances(mut self, instances: u32) -> Self {
        self.success_rate_instances = instances;
        self
    }

    /// Sets [`success_rate_calls`](Self::success_rate_calls).
    #[must_use]
    pub fn with_success_rate_calls(mut self, calls: u32) -> Self {
        self.success_rate_calls = calls;
        self
    }

    /// Sets [`success_rate_deviations`](Self::success_rate_deviations).
    #[must_use]
    pub fn with_success_rate_deviations(mut self, deviations: f64) -> Self {
        self.success_rate_deviations = deviations;
        self
    }

    /// Sets [`base_time`](Self::base_time).
    #[must_use]
    pub fn with_base_time(mut self, time: Duration) -> Self {
        self.base_time = time;
        self
    }

    /// Sets [`max_time`](Self::max_time).
    #[must_use]
    pub fn with_max_time(mut self, time: Duration) -> Self {
        self.max_time = time;
        self
    }

    /// Sets [`max_share`](Self::max_share).
    #[must_use]
    pub fn with_max_share(mut self, share: f64) -> Self {
        self.max_share = share;
        self
    }

    /// Sets [`slow_start`](Self::slow_start).
    #[must_use]
    pub fn with_slow_start(mut self, time: Duration) -> Self {
        self.slow_start = time;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        for (setting, share) in [
            ("ejection failing_share", self.failing_share),
            ("ejection max_share", self.max_share),
        ] {
            if !(0.0..=1.0).contains(&share) {
                let expected = "must be between 0 and 1";
                return Err(InvalidSetting::new(setting, share.to_string(), expected));
            }
        }
        if self.window < Self::MIN_WINDOW {
            return Err(InvalidSetting::new(
                "ejection window",
                format!("{:?}", self.window),
                "must be at least 10ms",
            ));
        }
        if self.base_time > self.max_time {
            return Err(InvalidSetting::new(
                "ejection base_time",
                format!("{:?}", self.base_time),
                "must be at most ejection max_time",
            ));
        }
        Ok(())
    }

    /// True if failing shares eject.
    pub(super) fn compares_shares(&self) -> bool {
        self.failing_share < 1.0
    }

    /// The time of the n-th ejection in short order.
    pub(super) fn time(&self, nth: u32) -> Duration {
        self.base_time.saturating_mul(nth).min(self.max_time)
    }
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_transport: 3,
            consecutive_status: 5,
            consecutive_overtaken: 10,
            window: Duration::from_secs(10),
            min_calls: 5,
            failing_share: 0.2,
            failing_share_instances: 0,
            success_rate_deviations: 1.9,
            success_rate_instances: 5,
            success_rate_calls: 100,
            base_time: Duration::from_secs(3),
            max_time: Duration::from_secs(60),
            max_share: 0.5,
            slow_start: Duration::from_secs(5),
        }
    }
}
