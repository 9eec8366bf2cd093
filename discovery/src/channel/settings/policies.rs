//! The policy of each method that follows from a builder's settings and a service config.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use http::HeaderName;

use super::{
    super::{
        method_policy::{MethodPolicy, Policies},
        route::Route,
    },
    Settings,
};
use crate::{
    config::{AttemptRule, Dialect, MethodConfig, Name, PathName, ServiceConfig},
    ejection::EjectionPolicy,
    retry::{Hedge, throttle::RetryLimit},
};

impl Settings {
    pub(super) fn policies_with(
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
        let mut paths: HashSet<&PathName> = HashSet::new();
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
                Name::Path(name) => {
                    paths.insert(name);
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
        for path in with_meets(&paths) {
            let name = Name::Path(path.clone());
            let policy = MethodPolicy {
                routes: routes_of(&name),
                ..self.method_with(None, of_path(config, &path).or(all), limit)
            };
            policies.add_path(path, policy);
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
                // The statuses of plain HTTP are those of its rules.
                if self.dialect == Dialect::Grpc {
                    retry.codes.clone_from(non_fatal);
                    retry.idempotent_codes.clone_from(non_fatal);
                }
                retry.hedge = Some(Hedge::Each(*delay));
                policy.idempotent = Some(true);
            }
        }
        let own = &config.own;
        policy.idempotent = own.idempotent.or(policy.idempotent);
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

/// The most exact entry for the requests of plain HTTP with this name.
fn of_path<'c>(config: &'c ServiceConfig, path: &PathName) -> Option<&'c MethodConfig> {
    let exactness = |entry: &MethodConfig| {
        let names = entry.names.iter().filter_map(|name| match name {
            Name::Path(name) if name.covers(path) => Some(name.exactness()),
            _ => None,
        });
        names.max()
    };
    let entries = config.methods.iter();
    let named = entries.filter_map(|entry| Some((exactness(entry)?, entry)));
    named
        .max_by_key(|(exactness, _)| *exactness)
        .map(|(_, entry)| entry)
}

/// The names, and those of the requests that two of them have in common: entries and routes hold for these
/// too, and neither of the two names is exact enough.
fn with_meets(names: &HashSet<&PathName>) -> BTreeSet<PathName> {
    let pairs = names
        .iter()
        .flat_map(|one| names.iter().map(move |other| (one, other)));
    pairs.filter_map(|(one, other)| one.meet(other)).collect()
}

/// The header whose value is the key of a call (gRFC A76).
fn hash_header(config: &ServiceConfig) -> Option<&HeaderName> {
    let own = config.own.hash_header.as_ref();
    own.or(config.balancing.hash_header.as_ref())
}
