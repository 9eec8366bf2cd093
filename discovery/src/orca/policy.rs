//! How load reports make weights.

use std::time::Duration;

use super::report::LoadReport;
use crate::error::InvalidSetting;

/// How weighted round robin makes weights of load reports (gRFC A58, whose names a service config has).
///
/// ```text
/// weight = rate / (utilization + failed rate / rate * error_penalty)
/// ```
///
/// The utilization is [`application_utilization`](LoadReport::application_utilization) if it is reported,
/// else [`cpu_utilization`](LoadReport::cpu_utilization). A report without a rate or a utilization is
/// ignored.
///
/// ```
/// use std::time::Duration;
/// use discovery::orca::LoadReports;
///
/// let reports = LoadReports::default().with_blackout(Duration::from_secs(2));
/// assert!(reports.validate().is_ok());
/// assert!(reports.with_error_penalty(-1.0).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LoadReports {
    /// The period of reports out of band; `None` to read the reports in the trailers of calls instead.
    /// The server may send them less often. Default: `None`.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_seconds")
    )]
    pub out_of_band: Option<Duration>,
    /// Time from the first report on a connection until its weight is used, so that a change of the set
    /// does not move the load back and forth. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub blackout: Duration,
    /// Time after which the last report is no longer used. Default: 3 minutes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub expiration: Duration,
    /// Interval at which weights follow the reports; at least 100 ms. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub update_period: Duration,
    /// Utilization that counts in addition if all calls fail; a part of it if some do. Default: 1.
    pub error_penalty: f64,
}

impl LoadReports {
    /// The period of reports out of band that gRPC has by default.
    pub const PERIOD: Duration = Duration::from_secs(10);
    /// The shortest [`update_period`](Self::update_period).
    pub const MIN_UPDATE_PERIOD: Duration = Duration::from_millis(100);

    /// Sets [`out_of_band`](Self::out_of_band).
    #[must_use]
    pub fn with_out_of_band(mut self, period: Duration) -> Self {
        self.out_of_band = Some(period);
        self
    }

    /// Sets [`blackout`](Self::blackout).
    #[must_use]
    pub fn with_blackout(mut self, time: Duration) -> Self {
        self.blackout = time;
        self
    }

    /// Sets [`expiration`](Self::expiration).
    #[must_use]
    pub fn with_expiration(mut self, time: Duration) -> Self {
        self.expiration = time;
        self
    }

    /// Sets [`update_period`](Self::update_period).
    #[must_use]
    pub fn with_update_period(mut self, period: Duration) -> Self {
        self.update_period = period;
        self
    }

    /// Sets [`error_penalty`](Self::error_penalty).
    #[must_use]
    pub fn with_error_penalty(mut self, penalty: f64) -> Self {
        self.error_penalty = penalty;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        if self.out_of_band.is_some_and(|period| period.is_zero()) {
            return Err(InvalidSetting::new(
                "load_reports out_of_band",
                "0s",
                "must be greater than zero",
            ));
        }
        if self.update_period < Self::MIN_UPDATE_PERIOD {
            return Err(InvalidSetting::new(
                "load_reports update_period",
                format!("{:?}", self.update_period),
                "must be at least 100ms",
            ));
        }
        if !(self.error_penalty.is_finite() && self.error_penalty >= 0.0) {
            return Err(InvalidSetting::new(
                "load_reports error_penalty",
                self.error_penalty.to_string(),
                "must be at least zero",
            ));
        }
        Ok(())
    }
}

impl Default for LoadReports {
    fn default() -> Self {
        Self {
            out_of_band: None,
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            update_period: Duration::from_secs(1),
            error_penalty: 1.0,
        }
    }
}

/// The weight that follows from a report; `None` if the report says too little.
pub(super) fn weight(report: &LoadReport, error_penalty: f64) -> Option<f64> {
    let utilization = if report.application_utilization > 0.0 {
        report.application_utilization
    } else {
        report.cpu_utilization
    };
    if utilization <= 0.0 || report.rps <= 0.0 {
        return None;
    }
    let weight = report.rps / (utilization + report.eps / report.rps * error_penalty);
    (weight.is_finite() && weight > 0.0).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_the_rate_by_the_utilization_and_failed_calls_lower_it() {
        let report = || LoadReport::new().with_rps(100.0).with_cpu_utilization(0.5);
        for (report, penalty, expected) in [
            (report(), 1.0, Some(200.0)),
            (report().with_eps(50.0), 1.0, Some(100.0)),
            (report().with_eps(50.0), 0.0, Some(200.0)),
            (
                report().with_application_utilization(0.25),
                1.0,
                Some(400.0),
            ),
            (report().with_rps(0.0), 1.0, None),
            (report().with_cpu_utilization(0.0), 1.0, None),
        ] {
            assert_eq!(weight(&report, penalty), expected, "{report:?}");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let policy = LoadReports::default;
        for (policy, message) in [
            (
                policy().with_out_of_band(Duration::ZERO),
                "load_reports out_of_band is 0s",
            ),
            (
                policy().with_update_period(Duration::from_millis(99)),
                "load_reports update_period is 99ms: must be at least 100ms",
            ),
            (
                policy().with_error_penalty(f64::NAN),
                "load_reports error_penalty is NaN",
            ),
        ] {
            let error = policy.validate().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
