//! `loadBalancingConfig`: the first policy of the list that this crate has, with its children.

use std::time::Duration;

use http::HeaderName;

use super::{
    error::{ConfigError, ConfigWarning},
    node::{Node, Object},
    own::WarmUpConfig,
    reported::{self, Reported},
};
use crate::balance::Policy;

/// The policies of gRPC that the list may name, and those of this crate by their own names.
const KNOWN: &str = "round_robin, weighted_round_robin, least_request_experimental, \
                     ring_hash_experimental, random_subsetting, outlier_detection_experimental, \
                     random, peak_ewma";
/// Nested policies that are read.
const MAX_DEPTH: usize = 8;
/// The largest ring of gRFC A42.
const MAX_RING: u64 = 8 << 20;

/// A tree of policies: a balancer, within a subset, within outlier detection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Balancing {
    pub(crate) balancer: Option<Policy>,
    pub(crate) subset: Option<usize>,
    pub(crate) outliers: Option<Outliers>,
    /// The header whose value is the key of a call.
    pub(crate) hash_header: Option<HeaderName>,
    /// The load reports of `weighted_round_robin`; `None` without a setting of them.
    #[cfg_attr(not(feature = "orca"), allow(dead_code, reason = "needs the feature"))]
    pub(crate) reported: Option<Reported>,
    pub(crate) warm_up: WarmUpConfig,
}

/// Outlier detection (gRFC A50), with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outliers {
    pub(crate) interval: Duration,
    pub(crate) base_time: Duration,
    pub(crate) max_time: Duration,
    /// From 0 to 1.
    pub(crate) max_share: f64,
    /// `None` if the algorithm is off.
    pub(crate) success_rate: Option<SuccessRate>,
    /// `None` if the algorithm is off.
    pub(crate) failing_share: Option<FailingShare>,
}

/// The first algorithm of outlier detection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SuccessRate {
    pub(crate) deviations: f64,
    pub(crate) instances: u32,
    pub(crate) calls: u32,
}

/// The second algorithm of outlier detection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FailingShare {
    /// From 0 to 1.
    pub(crate) threshold: f64,
    pub(crate) instances: u32,
    pub(crate) calls: u32,
}

impl Balancing {
    /// Reads a list of policies.
    pub(super) fn read(
        node: &Node<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        Self::nested(node, warnings, 0)
    }

    /// The policy that the older field `loadBalancingPolicy` names.
    pub(super) fn named(node: &Node<'_>) -> Result<Self, ConfigError> {
        let name = node.string()?.to_ascii_lowercase();
        let balancer = simple(&name).ok_or_else(|| node.invalid(format!("expected {KNOWN}")))?;
        Ok(Self {
            balancer: Some(balancer),
            ..Self::default()
        })
    }

    fn nested(
        node: &Node<'_>,
        warnings: &mut Vec<ConfigWarning>,
        depth: usize,
    ) -> Result<Self, ConfigError> {
        if depth == MAX_DEPTH {
            return Err(node.invalid(format!("policies are nested more than {MAX_DEPTH} deep")));
        }
        for entry in node.array()? {
            let mut fields = entry.object()?.fields();
            let (Some((name, config)), None) = (fields.pop(), fields.pop()) else {
                let expected = "expected an object with one field, the name of a policy";
                return Err(entry.invalid(expected));
            };
            if let Some(balancing) = Self::policy(&name, &config, warnings, depth)? {
                return Ok(balancing);
            }
            let reason = "is not a policy of this client: the next one in the list is taken";
            warnings.push(config.warning(reason));
        }
        Err(node.invalid(format!(
            "no policy in the list is known; expected one of {KNOWN}"
        )))
    }

    /// Reads the config of a policy. `None` if it is not known.
    fn policy(
        name: &str,
        config: &Node<'_>,
        warnings: &mut Vec<ConfigWarning>,
        depth: usize,
    ) -> Result<Option<Self>, ConfigError> {
        let balancing = match name {
            "random_subsetting" => {
                let mut object = config.object()?;
                let size = object
                    .take("subsetSize")
                    .ok_or_else(|| config.invalid("subsetSize is required"))?;
                let child = child(config, &mut object, warnings, depth)?;
                let size = usize::try_from(size.number(1)?).unwrap_or(usize::MAX);
                object.finish(warnings);
                Self {
                    // Of two subsets, the smaller one decides.
                    subset: Some(child.subset.map_or(size, |inner| inner.min(size))),
                    ..child
                }
            }
            "outlier_detection_experimental" => {
                let mut object = config.object()?;
                let child = child(config, &mut object, warnings, depth)?;
                let outliers = Outliers::read(&mut object, warnings)?;
                object.finish(warnings);
                Self {
                    outliers: Some(outliers),
                    ..child
                }
            }
            _ => {
                let Some(balancer) = simple(name) else {
                    return Ok(None);
                };
                let mut object = config.object()?;
                let mut balancing = Self {
                    balancer: Some(balancer),
                    ..Self::default()
                };
                if balancer == Policy::WeightedRoundRobin {
                    balancing.reported = Reported::read(&mut object, warnings)?;
                    balancing.warm_up = reported::slow_start(&mut object, warnings)?;
                } else {
                    balancing.hash_header = settings(balancer, config, &mut object, warnings)?;
                }
                object.finish(warnings);
                balancing
            }
        };
        Ok(Some(balancing))
    }
}

/// The balancer of a name that has no children: gRPC's, or this crate's with `-` or `_`.
fn simple(name: &str) -> Option<Policy> {
    match name {
        "least_request_experimental" => Some(Policy::LeastRequest),
        "ring_hash_experimental" => Some(Policy::ConsistentHash),
        _ => name.replace('_', "-").parse().ok(),
    }
}

fn child(
    config: &Node<'_>,
    object: &mut Object<'_>,
    warnings: &mut Vec<ConfigWarning>,
    depth: usize,
) -> Result<Balancing, ConfigError> {
    let child = object
        .take("childPolicy")
        .ok_or_else(|| config.invalid("childPolicy is required"))?;
    Balancing::nested(&child, warnings, depth + 1)
}

/// Checks the settings of a policy without children. The one that this crate's policies have is the
/// header of the hash (gRFC A76), which is returned.
fn settings(
    balancer: Policy,
    config: &Node<'_>,
    object: &mut Object<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<HeaderName>, ConfigError> {
    match balancer {
        Policy::LeastRequest => {
            if let Some(count) = object.take("choiceCount")
                && count.number(2)? != 2
            {
                warnings.push(count.warning("has no effect: two instances are compared"));
            }
        }
        Policy::ConsistentHash => {
            let reason = "has no effect: the ring has 128 points for the heaviest instance";
            let mut size = |name: &str| -> Result<Option<u64>, ConfigError> {
                let node = object.take(name);
                warnings.extend(node.as_ref().map(|node| node.warning(reason)));
                node.map(|node| node.integer(1, MAX_RING)).transpose()
            };
            let (min, max) = (size("minRingSize")?, size("maxRingSize")?);
            if let (Some(min), Some(max)) = (min, max)
                && min > max
            {
                return Err(config.invalid("minRingSize must be at most maxRingSize"));
            }
            return object.optional("requestHashHeader", Node::header);
        }
        _ => {}
    }
    Ok(None)
}

/// A percentage as a share.
fn percent(node: &Node<'_>) -> Result<f64, ConfigError> {
    #[allow(clippy::cast_precision_loss, reason = "at most 100")]
    let percent = node.integer(0, 100)? as f64;
    Ok(percent / 100.0)
}

/// False if an algorithm is turned off by its `enforcementPercentage`.
fn is_enforced(
    object: &mut Object<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<bool, ConfigError> {
    let Some(node) = object.take("enforcementPercentage") else {
        return Ok(true);
    };
    let percentage = node.integer(0, 100)?;
    if (1..100).contains(&percentage) {
        warnings.push(node.warning("has no effect: an outlier is always ejected; 0 turns it off"));
    }
    Ok(percentage > 0)
}

impl Outliers {
    fn read(
        object: &mut Object<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let second = Duration::from_secs(1);
        let base = object.take("baseEjectionTime");
        let base_time = base
            .as_ref()
            .map(Node::positive_duration)
            .transpose()?
            .unwrap_or(30 * second);
        let max_time = object.optional("maxEjectionTime", Node::positive_duration)?;
        let interval = object.take("interval");
        let outliers = Self {
            interval: interval
                .as_ref()
                .map(Node::positive_duration)
                .transpose()?
                .unwrap_or(10 * second),
            base_time,
            // The larger of 300 s and the base time (A50).
            max_time: max_time.unwrap_or(300 * second).max(base_time),
            max_share: object
                .optional("maxEjectionPercent", percent)?
                .unwrap_or(0.1),
            success_rate: object
                .optional("successRateEjection", |node| success_rate(node, warnings))?
                .flatten(),
            failing_share: object
                .optional("failurePercentageEjection", |node| {
                    failing_share(node, warnings)
                })?
                .flatten(),
        };
        if let Some(node) = interval
            && outliers.interval < Duration::from_millis(10)
        {
            return Err(node.invalid("must be at least \"0.01s\""));
        }
        Ok(outliers)
    }
}

fn success_rate(
    node: &Node<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<SuccessRate>, ConfigError> {
    let mut object = node.object()?;
    let factor = object.optional("stdevFactor", |node| node.number(0))?;
    let rate = SuccessRate {
        // In thousandths (A50).
        deviations: f64::from(factor.unwrap_or(1_900)) / 1_000.0,
        instances: object
            .optional("minimumHosts", |node| node.number(0))?
            .unwrap_or(5),
        calls: object
            .optional("requestVolume", |node| node.number(0))?
            .unwrap_or(100),
    };
    let enforced = is_enforced(&mut object, warnings)?;
    object.finish(warnings);
    Ok(enforced.then_some(rate))
}

fn failing_share(
    node: &Node<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<FailingShare>, ConfigError> {
    let mut object = node.object()?;
    let share = FailingShare {
        threshold: object.optional("threshold", percent)?.unwrap_or(0.85),
        instances: object
            .optional("minimumHosts", |node| node.number(0))?
            .unwrap_or(5),
        calls: object
            .optional("requestVolume", |node| node.number(0))?
            .unwrap_or(50),
    };
    let enforced = is_enforced(&mut object, warnings)?;
    object.finish(warnings);
    Ok(enforced.then_some(share))
}
