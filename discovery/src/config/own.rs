//! The settings of a channel that gRPC does not have.

use std::{num::NonZeroU32, time::Duration};

use http::HeaderName;

use super::{
    error::{ConfigError, ConfigWarning},
    node::Node,
    own_fixed::OwnFixed,
    routes::RouteConfig,
};
use crate::{
    balance::Policy,
    filter::zone::Locality,
    limit::{ConcurrencyLimit, LearntLimit},
    warm_up::WarmUp,
};

/// The settings under the key of this crate at the top of the document.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Own {
    pub(crate) balancer: Option<Policy>,
    pub(crate) ejection: OwnEjection,
    pub(crate) protection_share: Option<f64>,
    /// `Some(None)` is no limit.
    #[allow(clippy::option_option, reason = "absent, none, or a value")]
    pub(crate) protection_limit: Option<Option<Duration>>,
    pub(crate) locality: Option<Locality>,
    pub(crate) subset: Option<usize>,
    pub(crate) subset_id: Option<String>,
    pub(crate) budget_share: Option<f64>,
    pub(crate) budget_reserve: Option<u32>,
    pub(crate) concurrency: Option<ConcurrencyLimit>,
    pub(crate) routes: Vec<RouteConfig>,
    pub(crate) hash_header: Option<HeaderName>,
    pub(crate) fixed: OwnFixed,
    pub(crate) warm_up: WarmUpConfig,
}

/// The settings of the warm-up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WarmUpConfig {
    pub(crate) window: Option<Duration>,
    pub(crate) aggression: Option<f64>,
    pub(crate) min_share: Option<f64>,
}

/// The settings of outlier ejection. They win over `outlier_detection_experimental`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OwnEjection {
    pub(crate) enabled: Option<bool>,
    pub(crate) consecutive_transport: Option<u32>,
    pub(crate) consecutive_status: Option<u32>,
    pub(crate) consecutive_overtaken: Option<u32>,
    pub(crate) window: Option<Duration>,
    pub(crate) min_calls: Option<u32>,
    pub(crate) failing_share: Option<f64>,
    pub(crate) failing_share_instances: Option<u32>,
    pub(crate) success_rate_deviations: Option<f64>,
    pub(crate) success_rate_instances: Option<u32>,
    pub(crate) success_rate_calls: Option<u32>,
    pub(crate) base_time: Option<Duration>,
    pub(crate) max_time: Option<Duration>,
    pub(crate) max_share: Option<f64>,
    pub(crate) slow_start: Option<Duration>,
}

const SHARE: &str = "must be a number from 0 to 1";

fn share(node: &Node<'_>) -> Result<f64, ConfigError> {
    node.float(|it| (0.0..=1.0).contains(&it), SHARE)
}

impl Own {
    pub(super) fn read(
        node: &Node<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let mut object = node.object()?;
        let mut own = Self {
            balancer: object.optional("balancer", balancer)?,
            ejection: object
                .optional("ejection", |node| OwnEjection::read(node, warnings))?
                .unwrap_or_default(),
            locality: object.optional("locality", |node| locality(node, warnings))?,
            subset: object
                .optional("subset", |node| node.number(1))?
                .map(|size| usize::try_from(size).unwrap_or(usize::MAX)),
            subset_id: object.optional("subsetId", Node::name)?,
            hash_header: object.optional("requestHashHeader", Node::header)?,
            fixed: OwnFixed::read(&mut object, warnings)?,
            warm_up: object
                .optional("warmUp", |node| WarmUpConfig::read(node, warnings))?
                .unwrap_or_default(),
            concurrency: object.optional("concurrencyLimit", |node| concurrency(node, warnings))?,
            ..Self::default()
        };
        for route in object.optional("routes", Node::array)?.unwrap_or_default() {
            own.routes.push(RouteConfig::read(&route, warnings)?);
        }
        if let Some(node) = object.take("removalProtection") {
            let mut protection = node.object()?;
            own.protection_share = protection.optional("share", share)?;
            own.protection_limit = protection.optional("limit", limit)?;
            protection.finish(warnings);
        }
        if let Some(node) = object.take("retryBudget") {
            let mut budget = node.object()?;
            let expected = "must be a number from 0 to 10";
            own.budget_share = budget.optional("share", |node| {
                node.float(|it| (0.0..=10.0).contains(&it), expected)
            })?;
            own.budget_reserve = budget.optional("reserve", |node| node.number(0))?;
            budget.finish(warnings);
        }
        object.finish(warnings);
        Ok(own)
    }
}

/// How fast a share grows.
pub(super) fn aggression(node: &Node<'_>) -> Result<f64, ConfigError> {
    node.float(|it| it > 0.0, "must be a number greater than zero")
}

impl WarmUpConfig {
    fn read(node: &Node<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<Self, ConfigError> {
        let mut object = node.object()?;
        let own = Self {
            window: object.optional("window", Node::duration)?,
            aggression: object.optional("aggression", aggression)?,
            min_share: object.optional("minShare", share)?,
        };
        object.finish(warnings);
        Ok(own)
    }

    /// A policy with these settings in place of its own.
    pub(crate) fn over(&self, policy: WarmUp) -> WarmUp {
        WarmUp {
            window: self.window.unwrap_or(policy.window),
            aggression: self.aggression.unwrap_or(policy.aggression),
            min_share: self.min_share.unwrap_or(policy.min_share),
        }
    }
}

/// `"off"`, `"auto"`, a number of calls, or the settings of a learnt limit.
fn concurrency(
    node: &Node<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<ConcurrencyLimit, ConfigError> {
    if let Ok(text) = node.string()
        && let Ok(limit) = text.parse()
    {
        return Ok(limit);
    }
    if let Ok(calls) = node.number(1)
        && let Some(calls) = NonZeroU32::new(calls)
    {
        return Ok(ConcurrencyLimit::Fixed(calls));
    }
    let Ok(mut object) = node.object() else {
        return Err(node.invalid(
            "expected \"off\", \"auto\", a number of calls or the settings of a learnt limit",
        ));
    };
    let mut learnt = LearntLimit::default();
    for (name, setting) in [
        ("initial", &mut learnt.initial),
        ("min", &mut learnt.min),
        ("max", &mut learnt.max),
    ] {
        if let Some(value) = object.optional(name, |node| node.number(1))? {
            *setting = value;
        }
    }
    let expected = "must be a number of at least 1";
    let tolerance = |node: &Node<'_>| node.float(|it| it >= 1.0, expected);
    if let Some(tolerance) = object.optional("tolerance", tolerance)? {
        learnt.tolerance = tolerance;
    }
    object.finish(warnings);
    match learnt.validate() {
        Ok(()) => Ok(ConcurrencyLimit::Learnt(learnt)),
        Err(error) => Err(node.invalid(error.to_string())),
    }
}

fn balancer(node: &Node<'_>) -> Result<Policy, ConfigError> {
    node.string()?
        .parse()
        .map_err(|_| node.invalid(format!("expected one of {}", Policy::NAMES.join(", "))))
}

/// A limit of time; `"none"` for no limit.
fn limit(node: &Node<'_>) -> Result<Option<Duration>, ConfigError> {
    if node.string().is_ok_and(|text| text == "none") {
        return Ok(None);
    }
    match node.duration() {
        Ok(limit) => Ok(Some(limit)),
        Err(_) => {
            Err(node.invalid("expected \"none\" or seconds such as \"60s\"; \"0s\" turns it off"))
        }
    }
}

fn locality(node: &Node<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<Locality, ConfigError> {
    let mut object = node.object()?;
    let zone = object.optional("zone", Node::name)?;
    let datacenter = object.optional("datacenter", Node::name)?;
    let mut locality = match (zone, datacenter) {
        (Some(zone), Some(datacenter)) => Locality::zone(zone).within(datacenter),
        (Some(zone), None) => Locality::zone(zone),
        (None, Some(datacenter)) => Locality::datacenter(datacenter),
        (None, None) => return Err(node.invalid("zone or datacenter is required")),
    };
    if let Some(factor) = object.take("overprovisioningFactor") {
        locality.overprovisioning_factor =
            factor.float(|it| it >= 1.0, "must be a number of at least 1")?;
    }
    if let Some(order) = object.take("fallbackDatacenters") {
        locality.fallback_datacenters = order.names()?;
    }
    object.finish(warnings);
    Ok(locality)
}

impl OwnEjection {
    fn read(node: &Node<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<Self, ConfigError> {
        let mut object = node.object()?;
        let count = |node: &Node<'_>| node.number(0);
        let window = object.take("window");
        let own = Self {
            enabled: object.optional("enabled", Node::boolean)?,
            consecutive_transport: object.optional("consecutiveTransport", count)?,
            consecutive_status: object.optional("consecutiveStatus", count)?,
            consecutive_overtaken: object.optional("consecutiveOvertaken", count)?,
            window: window.as_ref().map(Node::positive_duration).transpose()?,
            min_calls: object.optional("minCalls", count)?,
            failing_share: object.optional("failingShare", share)?,
            failing_share_instances: object.optional("failingShareInstances", count)?,
            success_rate_deviations: object.optional("successRateDeviations", |node| {
                node.float(|it| it >= 0.0, "must be a number of at least zero")
            })?,
            success_rate_instances: object.optional("successRateInstances", count)?,
            success_rate_calls: object.optional("successRateCalls", count)?,
            base_time: object.optional("baseTime", Node::positive_duration)?,
            max_time: object.optional("maxTime", Node::positive_duration)?,
            max_share: object.optional("maxShare", share)?,
            slow_start: object.optional("slowStart", Node::duration)?,
        };
        if let Some(node) = window
            && own
                .window
                .is_some_and(|time| time < Duration::from_millis(10))
        {
            return Err(node.invalid("must be at least \"0.01s\""));
        }
        object.finish(warnings);
        Ok(own)
    }
}
