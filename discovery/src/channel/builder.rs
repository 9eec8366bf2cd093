//! Says what a channel is to be, and checks that it makes sense.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Uri};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::{Channel, call::Shared};
use crate::{
    backoff::Backoff,
    balance::{Balancer, Policy},
    connection::{Factory, Http2, origin::with_origin},
    ejection::EjectionPolicy,
    endpoint::Connector,
    endpointer::{Config, Endpointer, RemovalProtection},
    filter::{subset::Subset, zone::Locality},
    metrics::{Counters, Gauges},
    registry::{self, Query, Registry, RegistryError},
    retry::{Hedge, RetryPolicy, budget::Budget, latency::Latencies},
};

pub(super) enum Source {
    Url(String),
    Registry(Arc<dyn Registry>),
}

/// Builds a [`Channel`]. Every setting has a default; the defaults are the tutorial's where it has
/// them.
#[must_use]
pub struct ChannelBuilder {
    source: Source,
    query: Query,
    balancer: Arc<dyn Balancer>,
    retry: RetryPolicy,
    ejection: EjectionPolicy,
    protection: RemovalProtection,
    subset: Option<usize>,
    subset_id: Option<String>,
    locality: Option<Locality>,
    factory: Arc<dyn Factory>,
    origin: Option<Uri>,
    eager: bool,
    connect_timeout: Duration,
    connect_backoff: Backoff,
    connect_parallel: usize,
    user_agent: String,
    key_header: Option<String>,
}

/// Settings that contradict each other, or a registry that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The registry's URL or settings.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A setting of the channel.
    #[error("cannot build a channel to {service}: {setting}: {reason}")]
    Setting {
        /// The service's name.
        service: String,
        /// The builder's method.
        setting: &'static str,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// There is no runtime to do the background work.
    #[error("cannot build a channel to {0}: build it inside a tokio runtime")]
    NoRuntime(String),
}

impl ChannelBuilder {
    pub(super) fn new(source: Source, service: String) -> Self {
        Self {
            source,
            query: Query::new(service),
            balancer: Policy::default().balancer(),
            retry: RetryPolicy::default(),
            ejection: EjectionPolicy::default(),
            protection: RemovalProtection::default(),
            subset: None,
            subset_id: None,
            locality: None,
            factory: Arc::new(Http2::default()),
            origin: None,
            eager: true,
            connect_timeout: Duration::from_secs(1),
            connect_backoff: Backoff::new(Duration::from_millis(100), Duration::from_millis(750)),
            connect_parallel: 32,
            user_agent: concat!("discovery/", env!("CARGO_PKG_VERSION")).to_owned(),
            key_header: None,
        }
    }

    /// Only instances that carry all of these tags. Default: all instances.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.query.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Only instances whose health checks all pass. Default: true.
    pub fn passing_only(mut self, passing_only: bool) -> Self {
        self.query.passing_only = passing_only;
        self
    }

    /// Instances of another datacenter than the registry's own.
    pub fn datacenter(mut self, datacenter: impl Into<String>) -> Self {
        self.query.datacenter = Some(datacenter.into());
        self
    }

    /// Which instance gets the next attempt. Default: round robin.
    pub fn balancer(self, policy: Policy) -> Self {
        self.custom_balancer(policy.balancer())
    }

    /// A balancer of one's own making.
    pub fn custom_balancer(mut self, balancer: Arc<dyn Balancer>) -> Self {
        self.balancer = balancer;
        self
    }

    /// Everything about retries at once.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Attempts a call may take, the first included. Default: 3.
    pub fn retry_max(mut self, attempts: u32) -> Self {
        self.retry.max_attempts = attempts;
        self
    }

    /// Time for a call with all its attempts. Default: 500 ms.
    pub fn retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry.timeout = timeout;
        self
    }

    /// Time for one attempt of an idempotent method. Default: a third of the whole.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.retry.attempt_timeout = Some(timeout);
        self
    }

    /// Paths (`/pb.Trim/TrimSpace`) of methods that may be carried out twice: they are repeated
    /// after a timeout and after errors that other methods are not. Default: none.
    pub fn idempotent<T: Into<String>>(mut self, paths: impl IntoIterator<Item = T>) -> Self {
        self.retry
            .idempotent
            .extend(paths.into_iter().map(Into::into));
        self
    }

    /// A second attempt of idempotent methods while the first is still out. Default: none.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.retry.hedge = Some(hedge);
        self
    }

    /// When to take an instance out of picking on the evidence of calls.
    pub fn ejection(mut self, policy: EjectionPolicy) -> Self {
        self.ejection = policy;
        self
    }

    /// When to disbelieve a registry that suddenly names far fewer instances.
    pub fn protection(mut self, protection: RemovalProtection) -> Self {
        self.protection = protection;
        self
    }

    /// Prefers instances of this zone, as they name it, as long as they can carry the calls. Default:
    /// all instances are alike. See [`prefer`](Self::prefer) for the datacenter and for how much the
    /// zone is trusted to carry.
    pub fn zone(self, zone: impl Into<String>) -> Self {
        self.prefer(Locality::zone(zone))
    }

    /// Prefers instances near this place as long as they can carry the calls; the rest goes to the
    /// next nearest, and a call that failed near is tried there. Default: all instances are alike.
    pub fn prefer(mut self, locality: Locality) -> Self {
        self.locality = Some(locality);
        self
    }

    /// Uses so many instances only, and connects to no others: for fleets so large that a connection
    /// of every client to every instance is too much. Different clients use different ones; a
    /// client's change by one at most when one instance comes or goes (gRPC's A68), and one that cannot
    /// be connected to has a stand-in meanwhile. Take 20 or more, or the load of instances will
    /// differ much. Default: all instances.
    pub fn subset(mut self, instances: usize) -> Self {
        self.subset = Some(instances);
        self
    }

    /// Decides which instances a [`subset`](Self::subset) has: two clients of one name have the same.
    /// Name it after the client's host or its place in a deployment, and a restart keeps its subset.
    /// Default: a random name for each process.
    pub fn subset_id(mut self, client: impl Into<String>) -> Self {
        self.subset_id = Some(client.into());
        self
    }

    /// How connections are made. Default: [`Http2`].
    pub fn factory(mut self, factory: impl Factory) -> Self {
        self.factory = Arc::new(factory);
        self
    }

    /// Sets `:scheme` and `:authority` of the requests whose URI has no authority of its own, as
    /// [`tonic::transport::Endpoint::origin`](https://docs.rs/tonic/latest/tonic/transport/struct.Endpoint.html#method.origin)
    /// does. Needs both parts: `https://trim.example`. Default: the factory's; for [`Http2`] the
    /// instance's own address.
    pub fn origin(mut self, origin: Uri) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Whether connections are made before a call asks for them, and again when lost. Default:
    /// true, as gRPC's round robin does; turn it off for sets far larger than the load.
    pub fn eager(mut self, eager: bool) -> Self {
        self.eager = eager;
        self
    }

    /// Time for making one connection, up to the server's first frame. Default: 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Waits between attempts to connect to the same instance, before a fifth of jitter. Default:
    /// from 100 ms to 750 ms, so that where all are down a call goes through within a second of the
    /// first one's return. gRPC goes up to 120 s, but has nobody to tell it that the instance is
    /// back; this costs a packet or two a second.
    pub fn connect_backoff(mut self, first: Duration, ceiling: Duration) -> Self {
        self.connect_backoff = Backoff::new(first, ceiling);
        self
    }

    /// Connections being made at the same time. Default: 32.
    pub fn connect_parallel(mut self, connections: usize) -> Self {
        self.connect_parallel = connections;
        self
    }

    /// The `user-agent` of calls that have none. Default: this crate's name and version.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// The header whose value keeps calls with one instance, for balancers that hash. A
    /// [`HashKey`](crate::HashKey) in a request's extensions comes first. Default: none.
    pub fn key_header(mut self, header: impl Into<String>) -> Self {
        self.key_header = Some(header.into());
        self
    }

    /// Starts the registry's watch and the connections, and gives the channel without waiting for
    /// either: the first call waits as long as it has time. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the registry's URL or a setting makes no sense, with what is wrong with it.
    pub fn build(self) -> Result<Channel, BuildError> {
        let service = self.query.service.clone();
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BuildError::NoRuntime(service));
        }
        self.check()?;
        let bad = |setting, reason| BuildError::Setting {
            service: service.clone(),
            setting,
            reason,
        };
        let user_agent = HeaderValue::try_from(&self.user_agent)
            .map_err(|error| bad("user_agent", error.to_string()))?;
        let key_header = self
            .key_header
            .as_deref()
            .map(HeaderName::try_from)
            .transpose()
            .map_err(|error| bad("key_header", error.to_string()))?;
        let factory = with_origin(self.factory, self.origin)
            .map_err(|reason| bad("origin", reason.to_owned()))?;
        let registry = match self.source {
            Source::Url(url) => registry::connect(&url)?,
            Source::Registry(registry) => registry,
        };
        let instancer = registry.instancer(&self.query)?;
        let connector = Arc::new(Connector {
            factory,
            parallel: Semaphore::new(self.connect_parallel),
            timeout: self.connect_timeout,
            backoff: self.connect_backoff,
            eager: self.eager,
            changed: Arc::new(Notify::new()),
        });
        let config = Config {
            balancer: self.balancer,
            ejection: self.ejection.clone(),
            protection: self.protection,
            subset: self.subset.map(|size| match &self.subset_id {
                Some(id) => Subset::new(size, id.as_bytes()),
                None => Subset::new(size, &process_id().to_le_bytes()),
            }),
            locality: self.locality,
            connector,
            gauges: Gauges::new(&service),
        };
        let now = Instant::now();
        Ok(Channel {
            shared: Arc::new(Shared {
                endpointer: Endpointer::start(instancer, config),
                budget: Budget::new(self.retry.budget, now),
                latencies: Latencies::new(now),
                counters: Counters::new(&service),
                policy: self.retry,
                ejection: self.ejection,
                user_agent,
                key_header,
                service,
            }),
        })
    }

    /// Finds the first setting that makes no sense.
    fn check(&self) -> Result<(), BuildError> {
        let retry = &self.retry;
        let ejection = &self.ejection;
        let share = |share: f64| (0.0..=1.0).contains(&share);
        let path = |path: &String| path.starts_with('/') && path.matches('/').count() == 2;
        let rules: [Rule; 15] = [
            (
                !self.query.service.trim().is_empty(),
                "service",
                "name the service to call",
            ),
            (
                retry.max_attempts > 0,
                "retry_max",
                "a call takes at least one attempt",
            ),
            (
                !retry.timeout.is_zero(),
                "retry_timeout",
                "no call ends in no time",
            ),
            (
                retry.attempt_timeout.is_none_or(|t| !t.is_zero()),
                "attempt_timeout",
                "no attempt ends in no time",
            ),
            (
                retry.attempt_timeout.is_none_or(|t| t <= retry.timeout),
                "attempt_timeout",
                "an attempt cannot have more time than its call (retry_timeout)",
            ),
            (
                retry.idempotent.iter().all(path),
                "idempotent",
                "expected paths such as /package.Service/Method",
            ),
            (
                retry.backoff.first <= retry.backoff.ceiling,
                "retry backoff",
                "the first wait is longer than the ceiling",
            ),
            (
                (0.0..=10.0).contains(&retry.budget.share),
                "retry budget",
                "the share must lie between 0 and 10",
            ),
            (
                retry.hedge.is_none() || retry.max_attempts > 1,
                "hedge",
                "a second attempt needs a retry_max of 2 or more",
            ),
            (
                share(ejection.max_share)
                    && share(ejection.failing_share)
                    && share(self.protection.share),
                "ejection and protection",
                "shares must lie between 0 and 1",
            ),
            (
                ejection.window >= Duration::from_millis(10),
                "ejection",
                "the window must be at least 10 ms",
            ),
            (
                ejection.base_time <= ejection.max_time,
                "ejection",
                "the base time is longer than the longest time",
            ),
            (
                !self.connect_timeout.is_zero(),
                "connect_timeout",
                "no connection is made in no time",
            ),
            (
                self.connect_backoff.first <= self.connect_backoff.ceiling
                    && !self.connect_backoff.first.is_zero(),
                "connect_backoff",
                "expected a first wait above zero and no longer than the ceiling",
            ),
            (
                (1..=Semaphore::MAX_PERMITS).contains(&self.connect_parallel),
                "connect_parallel",
                "at least one connection must be allowed at a time",
            ),
        ];
        let mut rules = rules.into_iter().chain(self.filter_rules());
        match rules.find(|(holds, ..)| !holds) {
            None => Ok(()),
            Some((_, setting, reason)) => Err(BuildError::Setting {
                service: self.query.service.clone(),
                setting,
                reason: reason.to_owned(),
            }),
        }
    }

    fn filter_rules(&self) -> [Rule; 4] {
        let named = |part: fn(&Locality) -> Option<&str>| {
            let name = self.locality.as_ref().and_then(part);
            name.is_none_or(|name| !name.trim().is_empty())
        };
        [
            (
                self.subset != Some(0),
                "subset",
                "a client needs at least one instance",
            ),
            (
                self.subset_id.is_none() || self.subset.is_some(),
                "subset_id",
                "it decides nothing without a subset's size",
            ),
            (
                named(|l| l.zone.as_deref()) && named(|l| l.datacenter.as_deref()),
                "zone and prefer",
                "an empty name is no place; leave it out",
            ),
            (
                self.locality
                    .as_ref()
                    .is_none_or(|l| l.overprovisioning_factor >= 1.0),
                "prefer",
                "the overprovisioning_factor must be at least 1",
            ),
        ]
    }
}

/// What must hold, which setting it is about, and what is wrong otherwise.
type Rule = (bool, &'static str, &'static str);

/// What this process is called where nobody names it.
fn process_id() -> u64 {
    static ID: OnceLock<u64> = OnceLock::new();
    *ID.get_or_init(|| fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> ChannelBuilder {
        Channel::builder("static://127.0.0.1:1", "svc")
    }

    #[tokio::test]
    async fn says_which_setting_makes_no_sense() {
        let hour = Duration::from_secs(3_600);
        let mut timid = Locality::zone("a");
        timid.overprovisioning_factor = 0.5;
        for (builder, setting) in [
            (Channel::builder("static://127.0.0.1:1", " "), "service"),
            (builder().retry_max(0), "retry_max"),
            (builder().retry_timeout(Duration::ZERO), "retry_timeout"),
            (builder().attempt_timeout(hour), "attempt_timeout"),
            (builder().idempotent(["TrimSpace"]), "idempotent"),
            (builder().retry_max(1).hedge(Hedge::Percentile95), "hedge"),
            (
                builder().connect_backoff(hour, Duration::from_secs(1)),
                "connect_backoff",
            ),
            (builder().connect_parallel(0), "connect_parallel"),
            (builder().user_agent("a\nb"), "user_agent"),
            (builder().key_header("a b"), "key_header"),
            (builder().origin(Uri::from_static("a.example")), "origin"),
            (builder().subset(0), "subset"),
            (builder().subset_id("a"), "subset_id"),
            (builder().zone(""), "zone"),
            (builder().prefer(timid), "overprovisioning_factor"),
        ] {
            let error = builder.build().unwrap_err().to_string();
            assert!(error.contains(setting), "{error} does not name {setting}");
        }
        assert!(builder().build().is_ok());
    }

    #[test]
    fn says_that_it_needs_a_runtime() {
        assert!(matches!(builder().build(), Err(BuildError::NoRuntime(_))));
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_a_url() {
        for url in ["localhost:8500", "gopher://x", "static://", "static://a:0"] {
            assert!(Channel::builder(url, "svc").build().is_err(), "{url}");
        }
    }
}
