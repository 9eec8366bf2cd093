//! The settings of a channel as its builder left them, and the policies that follow from them and from a
//! service config.

#[cfg(feature = "service-config")]
mod ejection;
#[cfg(feature = "service-config")]
mod policies;

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::method_policy::{MethodPolicy, Policies};
#[cfg(feature = "service-config")]
use crate::config::{Dialect, ServiceConfig};
#[cfg(feature = "service-config")]
use crate::error::InvalidSetting;
#[cfg(feature = "orca")]
use crate::orca::LoadReports;
use crate::{
    balance::{Balancer, Policy},
    ejection::EjectionPolicy,
    endpointer::{RemovalProtection, SetPolicy},
    filter::{subset::Subset, zone::Locality},
    limit::ConcurrencyLimit,
    retry::{
        RetryPolicy,
        throttle::{LimitPolicy, RetryLimit},
    },
    warm_up::WarmUp,
};

/// The settings of a builder that a service config may replace.
pub(crate) struct Settings {
    pub(crate) retry: RetryPolicy,
    /// The builder's own maximum of attempts, which a service config cannot exceed.
    #[cfg_attr(
        not(feature = "service-config"),
        allow(dead_code, reason = "limits a config")
    )]
    pub(crate) max_attempts: Option<u32>,
    /// Paths of the methods whose request or response is declared to be a stream.
    pub(crate) streaming: HashSet<String>,
    pub(crate) ejection: EjectionPolicy,
    pub(crate) balancer: ChosenBalancer,
    pub(crate) protection: RemovalProtection,
    pub(crate) subset: Option<usize>,
    /// The name that decides which instances a subset has, if one is given.
    pub(crate) subset_id: Option<String>,
    /// The name in place of it.
    pub(crate) process_id: [u8; 8],
    pub(crate) locality: Option<Locality>,
    pub(crate) warm_up: WarmUp,
    #[cfg(feature = "orca")]
    pub(crate) load_reports: LoadReports,
    /// The service whose health is watched on each connection.
    pub(crate) health: Option<Arc<str>>,
    /// The limit of concurrent calls of each instance.
    pub(crate) concurrency: ConcurrencyLimit,
    /// The registry's datacenters in order of preference.
    pub(crate) datacenters: Vec<String>,
    /// The protocol, which a service config must be for.
    #[cfg(feature = "service-config")]
    pub(crate) dialect: Dialect,
}

/// A balancer, and its name if it is one of this crate's.
#[derive(Clone)]
pub(crate) struct ChosenBalancer {
    #[cfg_attr(
        not(feature = "service-config"),
        allow(dead_code, reason = "compared with a config's")
    )]
    pub(crate) name: Option<Policy>,
    pub(crate) balancer: Arc<dyn Balancer>,
}

impl From<Policy> for ChosenBalancer {
    fn from(policy: Policy) -> Self {
        Self {
            name: Some(policy),
            balancer: policy.balancer(),
        }
    }
}

/// The policies that follow from the settings and the service config in use.
pub(crate) struct Effective {
    pub(crate) policies: Arc<Policies>,
    pub(crate) set: SetPolicy,
    /// The parts that a later config keeps if it does not change them.
    #[cfg_attr(
        not(feature = "service-config"),
        allow(dead_code, reason = "for a replacement")
    )]
    pub(crate) kept: Kept,
}

/// The parts with a state, which outlives a service config that does not change them.
#[derive(Clone)]
pub(crate) struct Kept {
    balancer: ChosenBalancer,
    #[cfg_attr(
        not(feature = "service-config"),
        allow(dead_code, reason = "for a replacement")
    )]
    limit_policy: LimitPolicy,
    limit: Arc<RetryLimit>,
}

#[cfg(feature = "service-config")]
impl Kept {
    pub(crate) fn limit_policy(&self) -> LimitPolicy {
        self.limit_policy
    }
}

impl Settings {
    /// The policies without a service config.
    pub(crate) fn effective(&self, now: Instant) -> Effective {
        let limit_policy = LimitPolicy::Budget(self.retry.budget);
        let kept = Kept {
            balancer: self.balancer.clone(),
            limit_policy,
            limit: Arc::new(RetryLimit::new(limit_policy, now)),
        };
        let ejection = Arc::new(self.ejection.clone());
        let default = self.method(None, &kept.limit);
        let mut policies = Policies::new(default, Arc::clone(&ejection));
        for path in self.declared() {
            policies.add_method(path, self.method(Some(path), &kept.limit));
        }
        let set = SetPolicy {
            balancer: Arc::clone(&kept.balancer.balancer),
            balancer_name: kept.balancer.name,
            ejection,
            protection: self.protection,
            subset: self.subset.map(|size| self.subset(size, None)),
            locality: Locality::in_order(self.locality.clone(), &self.datacenters),
            warm_up: self.warm_up,
            #[cfg(feature = "orca")]
            load_reports: self.load_reports,
            health: self.health.clone(),
            concurrency: self.concurrency,
        };
        Effective {
            policies: Arc::new(policies),
            set,
            kept,
        }
    }

    /// A subset under the name that the service config gives, or else the builder's, or this process's.
    fn subset(&self, size: usize, name: Option<&str>) -> Subset {
        let name = name.or(self.subset_id.as_deref());
        Subset::new(size, name.map_or(&self.process_id[..], str::as_bytes))
    }

    /// Paths of methods that differ from the others by their declaration.
    fn declared(&self) -> HashSet<&str> {
        let paths = self.retry.idempotent.iter().chain(&self.streaming);
        paths.map(String::as_str).collect()
    }

    /// The policy of a method without a service config; of those that are not declared if `path` is
    /// `None`.
    fn method(&self, path: Option<&str>, limit: &Arc<RetryLimit>) -> MethodPolicy {
        let is_in = |set: &HashSet<String>| path.is_some_and(|path| set.contains(path));
        let mut retry = self.retry.clone();
        retry.idempotent = HashSet::new();
        MethodPolicy {
            retry,
            idempotent: is_in(&self.retry.idempotent).then_some(true),
            streaming: is_in(&self.streaming),
            wait_for_ready: false,
            stream_timeout: None,
            max_request: None,
            max_response: None,
            limit: Arc::clone(limit),
            #[cfg(feature = "service-config")]
            routes: Vec::new(),
        }
    }
}

#[cfg(feature = "service-config")]
impl Settings {
    /// The policies with a service config. Balancer and budget go on as they are where `kept` has them.
    ///
    /// # Errors
    ///
    /// If the config has a part that only another protocol has, or a setting of it cannot work together
    /// with one of the builder.
    pub(crate) fn effective_with(
        &self,
        config: &ServiceConfig,
        kept: &Kept,
        now: Instant,
    ) -> Result<Effective, InvalidSetting> {
        self.dialect.check(config)?;
        let kept = Kept {
            balancer: self.balancer_with(config, kept),
            ..self.limit_with(config, kept, now)
        };
        let ejection = self.ejection_with(config)?;
        let subset = self.subset_with(config);
        let subset_id = config.own.subset_id.as_deref();
        if let (Some(id), None) = (subset_id, subset) {
            let expected = "has no effect without subset";
            return Err(InvalidSetting::new(
                "subset_id",
                format!("{id:?}"),
                expected,
            ));
        }
        let locality = config.own.locality.as_ref().or(self.locality.as_ref());
        let mut protection = self.protection;
        protection.share = config.own.protection_share.unwrap_or(protection.share);
        protection.limit = config.own.protection_limit.unwrap_or(protection.limit);
        Ok(Effective {
            set: SetPolicy {
                balancer: Arc::clone(&kept.balancer.balancer),
                balancer_name: kept.balancer.name,
                ejection: Arc::clone(&ejection),
                protection,
                subset: subset.map(|size| self.subset(size, subset_id)),
                locality: Locality::in_order(locality.cloned(), &self.datacenters),
                warm_up: self.warm_up_with(config)?,
                #[cfg(feature = "orca")]
                load_reports: config.load_reports().unwrap_or(self.load_reports),
                health: config.health.clone().or_else(|| self.health.clone()),
                concurrency: config.own.concurrency.unwrap_or(self.concurrency),
            },
            policies: Arc::new(self.policies_with(config, &kept.limit, ejection)),
            kept,
        })
    }

    /// The size of the subset.
    fn subset_with(&self, config: &ServiceConfig) -> Option<usize> {
        let configured = config.own.subset.or(config.balancing.subset);
        configured.or(self.subset)
    }

    fn warm_up_with(&self, config: &ServiceConfig) -> Result<WarmUp, InvalidSetting> {
        let warm_up = config
            .own
            .warm_up
            .over(config.balancing.warm_up.over(self.warm_up));
        warm_up.validate().map(|()| warm_up)
    }

    fn balancer_with(&self, config: &ServiceConfig, kept: &Kept) -> ChosenBalancer {
        match config.own.balancer.or(config.balancing.balancer) {
            None => self.balancer.clone(),
            Some(name) if kept.balancer.name == Some(name) => kept.balancer.clone(),
            Some(name) => name.into(),
        }
    }

    fn limit_with(&self, config: &ServiceConfig, kept: &Kept, now: Instant) -> Kept {
        let mut budget = self.retry.budget;
        budget.share = config.own.budget_share.unwrap_or(budget.share);
        budget.reserve = config.own.budget_reserve.unwrap_or(budget.reserve);
        let throttle = config.throttling.map(LimitPolicy::Throttle);
        let policy = throttle.unwrap_or(LimitPolicy::Budget(budget));
        if kept.limit_policy == policy {
            return kept.clone();
        }
        Kept {
            limit_policy: policy,
            limit: Arc::new(RetryLimit::new(policy, now)),
            balancer: kept.balancer.clone(),
        }
    }
}
