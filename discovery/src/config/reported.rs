//! The settings of `weighted_round_robin` (gRFC A58, A100): how the load that servers report makes weights.

use std::time::Duration;

use super::{
    error::{ConfigError, ConfigWarning},
    node::{Node, Object},
    own::{WarmUpConfig, aggression},
};
#[cfg(feature = "orca")]
use crate::orca::LoadReports;

/// The settings of load reports. What is `None` has gRPC's default.
#[cfg_attr(
    not(feature = "orca"),
    allow(dead_code, reason = "only checked without the feature")
)]
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reported {
    pub(crate) out_of_band: bool,
    pub(crate) period: Option<Duration>,
    pub(crate) blackout: Option<Duration>,
    pub(crate) expiration: Option<Duration>,
    pub(crate) update_period: Option<Duration>,
    pub(crate) error_penalty: Option<f64>,
}

impl Reported {
    /// Reads the fields. `None` if there are none.
    pub(super) fn read(
        object: &mut Object<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Option<Self>, ConfigError> {
        let mut first = None;
        let mut take = |name: &str| {
            let node = object.take(name);
            if first.is_none() {
                first.clone_from(&node);
            }
            node
        };
        let duration = |node: Option<Node<'_>>| node.map(|node| node.duration()).transpose();
        let positive =
            |node: Option<Node<'_>>| node.map(|node| node.positive_duration()).transpose();
        let penalty =
            |node: Node<'_>| node.float(|it| it >= 0.0, "must be a number of at least zero");
        let reported = Self {
            out_of_band: take("enableOobLoadReport")
                .map(|node| node.boolean())
                .transpose()?
                .unwrap_or(false),
            period: positive(take("oobReportingPeriod"))?,
            blackout: duration(take("blackoutPeriod"))?,
            expiration: duration(take("weightExpirationPeriod"))?,
            update_period: duration(take("weightUpdatePeriod"))?,
            error_penalty: take("errorUtilizationPenalty").map(penalty).transpose()?,
        };
        let Some(first) = first else {
            return Ok(None);
        };
        if cfg!(not(feature = "orca")) {
            let reason = "has no effect: load reports need this crate's feature `orca`";
            warnings.push(first.warning(reason));
        }
        Ok(Some(reported))
    }
}

#[cfg(feature = "orca")]
impl Reported {
    /// The policy with these settings, and gRPC's defaults.
    pub(super) fn load_reports(&self) -> LoadReports {
        let mut reports = LoadReports::default();
        if self.out_of_band {
            reports.out_of_band = Some(self.period.unwrap_or(LoadReports::PERIOD));
        }
        reports.blackout = self.blackout.unwrap_or(reports.blackout);
        reports.expiration = self.expiration.unwrap_or(reports.expiration);
        let period = self.update_period.unwrap_or(reports.update_period);
        reports.update_period = period.max(LoadReports::MIN_UPDATE_PERIOD);
        reports.error_penalty = self.error_penalty.unwrap_or(reports.error_penalty);
        reports
    }
}

/// Reads `slowStartConfig` (gRFC A100).
pub(super) fn slow_start(
    object: &mut Object<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<WarmUpConfig, ConfigError> {
    let Some(node) = object.take("slowStartConfig") else {
        return Ok(WarmUpConfig::default());
    };
    let mut fields = node.object()?;
    let percent = fields.optional("minWeightPercent", |node| node.integer(0, 100))?;
    #[allow(clippy::cast_precision_loss, reason = "at most 100")]
    let min_share = percent.map(|percent| percent as f64 / 100.0);
    let config = WarmUpConfig {
        window: fields.optional("slowStartWindow", Node::duration)?,
        aggression: fields.optional("aggression", aggression)?,
        min_share,
    };
    fields.finish(warnings);
    Ok(config)
}
