//! The settings of a channel as its builder left them, and the policies that follow from them and from a
//! service config.

#[cfg(feature = "service-config")]
mod ejection;

use std::{collections::HashSet, sync::Arc};

#[cfg(feature = "service-config")]
use http::HeaderName;
use tokio::time::Instant;

use super::method_policy::{MethodPolicy, Policies};
#[cfg(feature = "service-config")]
use super::route::Route;
#[cfg(feature = "service-config")]
use crate::config::{AttemptRule, MethodConfig, Name, ServiceConfig};
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
#[cfg(feature = "service-config")]
use crate::{error::InvalidSetting, retry::Hedge};

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
            idempotent: is_in(&self.retry.idempotent),
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
    /// If a setting of the config cannot work together with one of the builder.
    pub(crate) fn effective_with(
        &self,
        config: &ServiceConfig,
        kept: &Kept,
        now: Instant,
    ) -> Result<Effective, InvalidSetting> {
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

    fn policies_with(
        &self,
        config: &ServiceConfig,
        limit: &Arc<RetryLimit>,
        ejection: Arc<EjectionPolicy>,
    ) -> Policies {
        let entry = |name: &Name| {
            let has_name = |entry: &&MethodConfig| entry.names.contains(name);
            config.methods.iter().find(has_name)
        };
        let all = entry(&Name::All);
        let of_service = |path: &str| {
            let service = path.rsplit_once('/').map_or(path, |(service, _)| service);
            entry(&Name::Service(service.to_owned())).or(all)
        };
        let routes: Vec<_> = config
            .own
            .routes
            .iter()
            .map(Route::new)
            .map(Arc::new)
            .collect();
        let routes_of = |name: &Name| {
            let is_for = |route: &&Arc<Route>| {
                let names = &route.config.names;
                names.is_empty() || names.iter().any(|wanted| wanted.covers(name))
            };
            routes.iter().filter(is_for).cloned().collect()
        };
        let default = MethodPolicy {
            routes: routes_of(&Name::All),
            ..self.method_with(None, all, limit)
        };
        let mut policies = Policies::new(default, ejection);
        policies.hash_header = hash_header(config).cloned();
        let mut methods: HashSet<&str> = self.declared();
        let mut services: HashSet<&str> = HashSet::new();
        let in_methods = config.methods.iter().flat_map(|entry| &entry.names);
        let in_routes = config.own.routes.iter().flat_map(|route| &route.names);
        for name in in_methods.chain(in_routes) {
            match name {
                Name::All => {}
                Name::Method(path) => {
                    methods.insert(path);
                }
                Name::Service(path) => {
                    services.insert(path);
                }
            }
        }
        for path in services {
            let name = Name::Service(path.to_owned());
            let policy = MethodPolicy {
                routes: routes_of(&name),
                ..self.method_with(None, entry(&name).or(all), limit)
            };
            policies.add_service(path, policy);
        }
        for path in methods {
            let name = Name::Method(path.to_owned());
            let own = entry(&name).or_else(|| of_service(path));
            let policy = MethodPolicy {
                routes: routes_of(&name),
                ..self.method_with(Some(path), own, limit)
            };
            policies.add_method(path, policy);
        }
        policies
    }

    fn method_with(
        &self,
        path: Option<&str>,
        config: Option<&MethodConfig>,
        limit: &Arc<RetryLimit>,
    ) -> MethodPolicy {
        let mut policy = self.method(path, limit);
        let Some(config) = config else {
            return policy;
        };
        let retry = &mut policy.retry;
        if let Some(timeout) = config.timeout {
            retry.timeout = Some(retry.timeout.map_or(timeout, |own| own.min(timeout)));
            policy.stream_timeout = Some(timeout);
        }
        policy.wait_for_ready = config.wait_for_ready.unwrap_or(false);
        policy.max_request = config.max_request;
        policy.max_response = config.max_response;
        match &config.attempts {
            None => {}
            Some(AttemptRule::Retry {
                max_attempts,
                backoff,
                codes,
            }) => {
                retry.max_attempts = *max_attempts;
                retry.backoff = *backoff;
                retry.codes.clone_from(codes);
                retry.idempotent_codes.clone_from(codes);
                retry.elsewhere_at_once = false;
            }
            Some(AttemptRule::Hedging {
                max_attempts,
                delay,
                non_fatal,
            }) => {
                retry.max_attempts = *max_attempts;
                retry.codes.clone_from(non_fatal);
                retry.idempotent_codes.clone_from(non_fatal);
                retry.hedge = Some(Hedge::Each(*delay));
                policy.idempotent = true;
            }
        }
        let own = &config.own;
        policy.idempotent = own.idempotent.unwrap_or(policy.idempotent);
        retry.max_attempts = own.max_attempts.unwrap_or(retry.max_attempts);
        retry.max_attempts = retry
            .max_attempts
            .min(self.max_attempts.unwrap_or(u32::MAX));
        retry.attempt_timeout = own.attempt_timeout.or(retry.attempt_timeout);
        let learn = own.learn_attempt_timeout;
        retry.learn_attempt_timeout = learn.unwrap_or(retry.learn_attempt_timeout);
        retry.hedge = own.hedge.unwrap_or(retry.hedge);
        if let Some(codes) = &own.retry_codes {
            retry.codes.clone_from(codes);
        }
        if let Some(codes) = &own.idempotent_codes {
            retry.idempotent_codes.clone_from(codes);
        }
        let backoff = &mut retry.backoff;
        backoff.ceiling = own.max_backoff.unwrap_or(backoff.ceiling);
        // As in gRPC, a first backoff above the maximum is the maximum.
        backoff.first = own.initial_backoff.unwrap_or(backoff.first);
        backoff.first = backoff.first.min(backoff.ceiling);
        backoff.multiplier = own.backoff_multiplier.unwrap_or(backoff.multiplier);
        retry.elsewhere_at_once = own.elsewhere_at_once.unwrap_or(retry.elsewhere_at_once);
        retry.replay_limit = own.replay_limit.unwrap_or(retry.replay_limit);
        policy
    }
}

/// The header whose value is the key of a call (gRFC A76).
#[cfg(feature = "service-config")]
fn hash_header(config: &ServiceConfig) -> Option<&HeaderName> {
    let own = config.own.hash_header.as_ref();
    own.or(config.balancing.hash_header.as_ref())
}
