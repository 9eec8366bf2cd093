//! gRPC's service config: the policy of a channel as JSON, read as gRPC reads it.
//!
//! The document is `grpc_service_config.proto` in protobuf's JSON mapping (gRFC A2). Settings that gRPC
//! does not have stand under the key `discovery`, at the top and in each entry of `methodConfig`; other
//! clients ignore them. A channel of [plain HTTP](#plain-http) reads it with names of its own.
//!
//! | field | gRFC | effect |
//! |---|---|---|
//! | `methodConfig[].name` | A2 | the entry of the method, else of its service, else of all; a name given twice is an error |
//! | `timeout` | A2 | time of a call; the caller's deadline and the builder's timeout may be earlier |
//! | `waitForReady` | A2 | a call waits for an instance until its deadline |
//! | `maxRequestMessageBytes`, `maxResponseMessageBytes` | A2 | a longer message ends the call with `RESOURCE_EXHAUSTED` |
//! | `retryPolicy` | A6 | these codes, attempts (at most 5) and backoffs, also before the second attempt |
//! | `hedgingPolicy` | A6 | further attempts after each delay; the method counts as idempotent |
//! | `retryThrottling` | A6 | the token bucket of A6 in place of the [budget](crate::BudgetPolicy) |
//! | `healthCheckConfig` | A17 | the service whose [health is watched](crate::ChannelBuilder::health_service) on each connection |
//! | `loadBalancingConfig` | A2 | the first known policy: `round_robin`, `weighted_round_robin` (A58), `least_request_experimental` (A48), `ring_hash_experimental` (A42), `random_subsetting` (A68), `outlier_detection_experimental` (A50), and this crate's others by their names |
//! | `loadBalancingPolicy` | A2 | the older form: a name; `loadBalancingConfig` wins |
//!
//! The fields of `weighted_round_robin` are those of gRFC A58, for the load that servers report: they need
//! the feature `orca`. Its `slowStartConfig` (A100) sets the warm-up, for every balancer.
//!
//! `pick_first` and policies that are not known are passed over with a warning, and so are unknown fields.
//!
//! Three things differ from gRPC on purpose. Without `retryThrottling`, this crate's
//! [budget](crate::BudgetPolicy) limits retries and hedges; gRPC does not limit them then. Without a
//! `retryPolicy`, the builder's retries are made; gRPC makes none then. The method's `timeout` is kept by
//! the client: `grpc-timeout` on the wire is the caller's own deadline, so that a retry does not look like
//! a caller that gives up; for a stream it is the earlier of both.
//!
//! | under `discovery` at the top | as in |
//! |---|---|
//! | `balancer` | [`Policy::NAMES`](crate::balance::Policy::NAMES); wins over `loadBalancingConfig` |
//! | `ejection` | [`EjectionPolicy`](crate::EjectionPolicy), in lower camel case |
//! | `removalProtection`: `share`, `limit` | [`RemovalProtection`](crate::RemovalProtection) |
//! | `locality`: `zone`, `datacenter`, `overprovisioningFactor`, `fallbackDatacenters` | [`Locality`](crate::Locality) |
//! | `warmUp`: `window`, `aggression`, `minShare` | [`WarmUp`](crate::WarmUp) |
//! | `subset`, `subsetId` | [`ChannelBuilder::subset`](crate::ChannelBuilder::subset) |
//! | `retryBudget`: `share`, `reserve` | [`BudgetPolicy`](crate::BudgetPolicy) |
//! | `requestHashHeader` | `ring_hash_experimental` (gRFC A76): the header whose value is the key of calls without a [`HashKey`](crate::HashKey), for the balancer `consistent-hash` |
//! | `passingOnly`, `datacenters` | [`ChannelBuilder::passing_only`](crate::ChannelBuilder::passing_only), [`datacenter`](crate::ChannelBuilder::datacenter) |
//! | `connections`: `eager`, `timeout`, `initialBackoff`, `maxBackoff`, `parallel` | [`ChannelBuilder::eager`](crate::ChannelBuilder::eager) and the `connect_` settings after it |
//! | `connections`: `keepAlive`, `keepAliveTimeout` (5 s), `tcpKeepAlive` | [`Http2::with_keep_alive`](crate::connection::Http2::with_keep_alive), [`with_tcp_keep_alive`](crate::connection::Http2::with_tcp_keep_alive); `"0s"` is off |
//! | `concurrencyLimit` | [`ChannelBuilder::concurrency_limit`](crate::ChannelBuilder::concurrency_limit): `"off"`, `"auto"`, a number, or `initial`, `min`, `max`, `tolerance` of a [`LearntLimit`](crate::limit::LearntLimit) |
//! | `routes` | see below |
//!
//! `passingOnly`, `datacenters` and `connections` are read when the channel is built. A later config that
//! changes them has its other settings applied, and a warning is logged.
//!
//! The first of the `routes` that matches a call decides which instances it may use, unless its
//! [`CallOptions`](crate::CallOptions) do. `name` is as in `methodConfig` (absent: all methods), and
//! `metadata` are keys that the call must have, with a value or null for any. `split` are parts of the
//! calls by `weight` (1), each with the `tags`, `metadata` and `id` of its instances, and with
//! `fallback` (true): whether other instances are used while none of these can be, which
//! `discovery_fallbacks_total` counts. Calls with the same [`HashKey`](crate::HashKey) have the same
//! part.
//!
//! ```json
//! {"discovery": {"routes": [
//!     {"metadata": {"x-canary": null}, "split": [{"tags": ["canary"]}]},
//!     {"name": [{"service": "pb.Trim"}], "split": [
//!         {"weight": 95, "metadata": {"version": "1"}},
//!         {"weight": 5, "metadata": {"version": "2"}}
//!     ]}
//! ]}}
//! ```
//!
//! | under `discovery` of a method | effect |
//! |---|---|
//! | `idempotent` | the method may, or must not, be executed twice |
//! | `attemptTimeout`, `learnAttemptTimeout`, `idempotentCodes`, `maxAttempts`, `replayLimit` | as in [`RetryPolicy`](crate::RetryPolicy) |
//! | `retryCodes`, `initialBackoff`, `maxBackoff`, `backoffMultiplier` | as in a `retryPolicy`, each by itself; they win over it |
//! | `hedge` | `"off"`, `"p95"` or a delay |
//! | `retryElsewhereAtOnce` | the second attempt goes to another instance without a backoff; `false` with a `retryPolicy`, otherwise `true` |
//!
//! # Plain HTTP
//!
//! For a channel of the feature `http`, a `name` in `methodConfig` and `routes` is
//! `{"path": "/orders", "method": "GET"}`: the requests to that path and to those below it, with this HTTP
//! method; without `method`, with any. Of the entries that name a request, the one with the longest path holds,
//! and of two with the same path the one with a method. `metadata` are headers.
//!
//! Statuses are a matter of `http::Rules`, so `retryPolicy`, `nonFatalStatusCodes`, `retryCodes` and
//! `idempotentCodes` are errors there. So are `healthCheckConfig`, `maxRequestMessageBytes` and
//! `maxResponseMessageBytes`, and names of services. Names of paths are errors for a gRPC channel.
//!
//! # Which setting counts
//!
//! A setting of the config replaces the builder's. The builder's own timeout and `retry_max`, where they
//! were set, remain upper limits, as gRPC's channel arguments do. Settings that the config leaves out are
//! the builder's. An entry of `methodConfig` is used as a whole: settings that it leaves out are the
//! builder's, not those of a less exact entry.
//!
//! ```
//! use discovery::{Channel, config::ServiceConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let json = r#"{
//!     "loadBalancingConfig": [{"round_robin": {}}],
//!     "methodConfig": [{
//!         "name": [{"service": "pb.Trim"}],
//!         "timeout": "0.5s",
//!         "retryPolicy": {
//!             "maxAttempts": 3,
//!             "initialBackoff": "0.01s",
//!             "maxBackoff": "0.25s",
//!             "backoffMultiplier": 2,
//!             "retryableStatusCodes": ["UNAVAILABLE"]
//!         },
//!         "discovery": {"idempotent": true}
//!     }]
//! }"#;
//! let config = ServiceConfig::parse(json)?;
//! assert!(config.warnings().is_empty());
//! let builder = Channel::builder("consul://localhost:8500", "trim_service").service_config(config);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

mod attempts;
mod balancing;
mod dialect;
mod error;
mod method;
mod node;
mod own;
mod own_fixed;
mod own_method;
mod path_name;
mod reported;
mod routes;
#[cfg(test)]
mod tests;

pub use self::error::{ConfigError, ConfigWarning};
use self::node::Node;
pub(crate) use self::{
    attempts::{AttemptRule, MAX_ATTEMPTS},
    balancing::{Balancing, Outliers},
    dialect::Dialect,
    method::{MethodConfig, Name},
    own::{Own, OwnEjection},
    own_fixed::{KEEP_ALIVE_TIMEOUT, OwnConnections},
    path_name::PathName,
    routes::{Destination, RouteConfig},
};
use crate::retry::ThrottlePolicy;

/// The key of the settings that gRPC does not have.
pub(crate) const OWN_KEY: &str = "discovery";

/// A service config that was read and checked. The [module](self) lists the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    pub(crate) methods: Vec<MethodConfig>,
    pub(crate) throttling: Option<ThrottlePolicy>,
    pub(crate) balancing: Balancing,
    /// The service whose health is watched.
    pub(crate) health: Option<Arc<str>>,
    pub(crate) own: Own,
    warnings: Vec<ConfigWarning>,
}

impl ServiceConfig {
    /// Reads a service config.
    ///
    /// # Errors
    ///
    /// If the text is not JSON, or a value is not allowed. The error names line, column and field.
    pub fn parse(json: &str) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let mut object = Node::root(json)?.object()?;
        let mut seen = Vec::new();
        let mut methods = Vec::new();
        for entry in object
            .optional("methodConfig", Node::array)?
            .unwrap_or_default()
        {
            methods.push(MethodConfig::read(&entry, &mut seen, &mut warnings)?);
        }
        let throttling = object.optional("retryThrottling", |node| {
            attempts::throttling(node, &mut warnings)
        })?;
        let by_name = object.take("loadBalancingPolicy");
        let balancing = match (object.take("loadBalancingConfig"), by_name) {
            (Some(list), _) => Balancing::read(&list, &mut warnings)?,
            (None, Some(name)) => Balancing::named(&name)?,
            (None, None) => Balancing::default(),
        };
        let mut health = None;
        if let Some(node) = object.take("healthCheckConfig") {
            let mut object = node.object()?;
            let service = object.optional("serviceName", Node::string)?;
            object.finish(&mut warnings);
            // Without a name, that of the server as a whole, as protobuf reads it.
            health = Some(service.unwrap_or_default().into());
        }
        let own = object.optional(OWN_KEY, |node| Own::read(node, &mut warnings))?;
        object.finish(&mut warnings);
        Ok(Self {
            methods,
            throttling,
            balancing,
            health,
            own: own.unwrap_or_default(),
            warnings,
        })
    }

    /// The load reports of `weighted_round_robin`; `None` without a setting of them.
    #[cfg(feature = "orca")]
    pub(crate) fn load_reports(&self) -> Option<crate::orca::LoadReports> {
        let reported = self.balancing.reported.as_ref()?;
        Some(reported.load_reports())
    }

    /// The parts that have no effect: unknown fields and policies, one warning each.
    #[must_use]
    pub fn warnings(&self) -> &[ConfigWarning] {
        &self.warnings
    }
}
