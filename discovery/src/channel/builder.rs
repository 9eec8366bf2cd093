//! Collects the settings of a channel.

mod start;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Uri};

pub(crate) use self::start::ProtocolSettings;
use super::{
    Channel, chosen_factory::ChosenFactory, pick::MIN_CONCURRENT_STREAMS,
    retry_overrides::RetryOverrides, settings::ChosenBalancer, trace::Propagate,
};
#[cfg(feature = "http")]
use crate::code::Code;
#[cfg(feature = "service-config")]
use crate::config::Dialect;
#[cfg(feature = "orca")]
use crate::orca::LoadReports;
use crate::{
    backoff::Backoff,
    balance::{Balancer, Policy},
    connection::{Factory, Http2},
    ejection::EjectionPolicy,
    endpointer::RemovalProtection,
    error::InvalidSetting,
    filter::zone::Locality,
    limit::ConcurrencyLimit,
    registry::{Query, Registry, RegistryError},
    retry::{Hedge, RetryPolicy},
    warm_up::WarmUp,
};

pub(crate) enum Source {
    Url(String),
    Registry(Arc<dyn Registry>),
}

/// Builds a [`Channel`], or a channel of another protocol, which has rules `R` of its own. Every setting
/// has a default; the defaults are the tutorial's where it has one. The order of the calls does not
/// matter.
#[must_use]
pub struct ChannelBuilder<R = ()> {
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "gRPC has none"))]
    rules: R,
    source: Source,
    pub(super) query: Query,
    balancer: ChosenBalancer,
    retry: RetryPolicy,
    overrides: RetryOverrides,
    ejection: EjectionPolicy,
    protection: RemovalProtection,
    subset: Option<usize>,
    subset_id: Option<String>,
    locality: Option<Locality>,
    warm_up: WarmUp,
    #[cfg(feature = "orca")]
    load_reports: LoadReports,
    health: Option<Arc<str>>,
    concurrency: ConcurrencyLimit,
    pub(super) factory: ChosenFactory,
    origin: Option<Uri>,
    pub(super) eager: bool,
    pub(super) connect_timeout: Duration,
    pub(super) connect_backoff: Backoff,
    pub(super) connect_parallel: usize,
    user_agent: Option<String>,
    propagate: Option<Arc<Propagate>>,
    #[cfg(feature = "service-config")]
    pub(super) service_config: crate::config::ServiceConfig,
    #[cfg(feature = "descriptors")]
    descriptors: Option<std::borrow::Cow<'static, [u8]>>,
}

/// A channel that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The registry's URL or settings.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A setting of the channel.
    #[error("cannot build a channel to {service:?}: {setting}")]
    Setting {
        /// The service's name.
        service: String,
        /// The setting, its value, and the values that are allowed.
        setting: InvalidSetting,
    },
    /// There is no runtime for the background work.
    #[error("cannot build a channel to {0:?}: build it inside a tokio runtime")]
    NoRuntime(String),
}

impl<R> ChannelBuilder<R> {
    pub(crate) fn with_rules(
        source: Source,
        service: String,
        factory: impl Factory,
        rules: R,
    ) -> Self {
        Self {
            rules,
            source,
            query: Query::new(service),
            balancer: Policy::default().into(),
            retry: RetryPolicy::default(),
            overrides: RetryOverrides::default(),
            ejection: EjectionPolicy::default(),
            protection: RemovalProtection::default(),
            subset: None,
            subset_id: None,
            locality: None,
            warm_up: WarmUp::default(),
            #[cfg(feature = "orca")]
            load_reports: LoadReports::default(),
            health: None,
            concurrency: ConcurrencyLimit::Off,
            factory: ChosenFactory::of(factory),
            origin: None,
            eager: true,
            connect_timeout: Duration::from_secs(1),
            connect_backoff: Backoff::new(Duration::from_millis(100), Duration::from_millis(750)),
            connect_parallel: 32,
            user_agent: None,
            propagate: None,
            #[cfg(feature = "service-config")]
            service_config: crate::config::ServiceConfig::default(),
            #[cfg(feature = "descriptors")]
            descriptors: None,
        }
    }

    /// Only instances that have all of these tags. Default: all instances.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.query.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Only instances whose health checks all pass. Default: true.
    pub fn passing_only(mut self, passing_only: bool) -> Self {
        self.query.passing_only = passing_only;
        self
    }

    /// Instances of another datacenter than the registry's own, or of several datacenters in order of
    /// preference, separated by commas: calls go to the first that has working instances. With
    /// [`prefer`](Self::prefer), the order only ranks the other datacenters.
    pub fn datacenter(mut self, datacenter: impl Into<String>) -> Self {
        self.query.datacenter = Some(datacenter.into());
        self
    }

    /// The policy that picks the instance of each attempt. Default: round robin.
    pub fn balancer(mut self, policy: Policy) -> Self {
        self.balancer = policy.into();
        self
    }

    /// A balancer of your own.
    pub fn custom_balancer(mut self, balancer: Arc<dyn Balancer>) -> Self {
        self.balancer = ChosenBalancer {
            name: None,
            balancer,
        };
        self
    }

    /// The retry policy. Settings given one by one, by the methods below, override it, and their
    /// idempotent methods are added to its own.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Maximum number of attempts of a call, the first included. Default: 3.
    pub fn retry_max(mut self, attempts: u32) -> Self {
        self.overrides.max_attempts = Some(attempts);
        self
    }

    /// Time for a unary call with all its attempts. It caps the caller's deadline. Default: the
    /// caller's deadline, or 500 ms where the caller gives none.
    pub fn retry_timeout(mut self, timeout: Duration) -> Self {
        self.overrides.timeout = Some(timeout);
        self
    }

    /// Latest time after which another attempt of an idempotent method begins beside one without an answer;
    /// earlier by the method's own answers, see [`RetryPolicy::learn_attempt_timeout`]. Default: a third of
    /// [`retry_timeout`](Self::retry_timeout), or of its 500 ms.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.overrides.attempt_timeout = Some(timeout);
        self
    }

    /// A second attempt of idempotent methods while the first is under way. Default: none.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.overrides.hedge = Some(hedge);
        self
    }

    /// The policy that stops sending calls to faulty instances.
    pub fn ejection(mut self, policy: EjectionPolicy) -> Self {
        self.ejection = policy;
        self
    }

    /// Protection against a registry that suddenly names far fewer instances.
    pub fn protection(mut self, protection: RemovalProtection) -> Self {
        self.protection = protection;
        self
    }

    /// Gives instances that join a running set a share of calls that grows over a window. Default: none.
    pub fn warm_up(mut self, warm_up: WarmUp) -> Self {
        self.warm_up = warm_up;
        self
    }

    /// How [weighted round robin](crate::balance::weighted_round_robin) makes weights of the load that
    /// servers report, see [`orca`](crate::orca). Other balancers do not read reports.
    #[cfg(feature = "orca")]
    pub fn load_reports(mut self, reports: LoadReports) -> Self {
        self.load_reports = reports;
        self
    }

    /// Prefers instances of this zone, as they name it, as long as they have the capacity for the
    /// calls. Default: no preference. See [`prefer`](Self::prefer) for the datacenter and the
    /// overprovisioning factor.
    pub fn zone(self, zone: impl Into<String>) -> Self {
        self.prefer(Locality::zone(zone))
    }

    /// Prefers instances near this place as long as they have the capacity for the calls. The other
    /// calls, and calls that failed near, go to the next nearest. Default: no preference.
    pub fn prefer(mut self, locality: Locality) -> Self {
        self.locality = Some(locality);
        self
    }

    /// Limits the calls in flight to each instance, see [`limit`](crate::limit). A call goes to an
    /// instance below its limit; if there is none, it fails at once with `RESOURCE_EXHAUSTED`, or waits if
    /// it waits for ready. Streams count for as long as they last. Calls from several threads do not
    /// exceed the limit either. A learnt limit falls when calls take longer than usual, are refused with
    /// `RESOURCE_EXHAUSTED`, or have no answer in time. Default: off.
    pub fn concurrency_limit(mut self, limit: ConcurrencyLimit) -> Self {
        self.concurrency = limit;
        self
    }

    /// Uses this many instances and connects to no others: for a set so large that a connection of
    /// every client to every instance costs too much.
    ///
    /// Different clients use different instances. A client's subset changes by at most one when an instance
    /// is added or removed (gRFC A68). An instance that cannot be connected to is replaced meanwhile, and so
    /// is its replacement, until so many can be. With fewer than about 20, the load of instances differs
    /// much. Default: all instances.
    pub fn subset(mut self, instances: usize) -> Self {
        self.subset = Some(instances);
        self
    }

    /// Decides which instances a [`subset`](Self::subset) has; equal names have equal subsets. A name
    /// made from the client's host or its place in a deployment keeps the subset after a restart.
    /// Default: random per process.
    pub fn subset_id(mut self, client: impl Into<String>) -> Self {
        self.subset_id = Some(client.into());
        self
    }

    /// The factory that makes connections. Default: [`Http2`](crate::connection::Http2).
    pub fn factory(mut self, factory: impl Factory) -> Self {
        self.factory = ChosenFactory::of(factory);
        self
    }

    /// Sets `:scheme` and `:authority` of the requests whose URI has no authority of its own, as
    /// [`tonic::transport::Endpoint::origin`](https://docs.rs/tonic/latest/tonic/transport/struct.Endpoint.html#method.origin)
    /// does. Needs both parts: `https://trim.example`. Default: the factory's; for
    /// [`Http2`](crate::connection::Http2) the instance's own address.
    pub fn origin(mut self, origin: Uri) -> Self {
        self.origin = Some(origin);
        self
    }

    /// True to connect before the first call, and again when a connection is lost, as gRPC's round
    /// robin does. False to connect to an instance when the balancer picks it; the call waits for the
    /// connection for up to 100 ms, then uses another instance. False suits sets far larger than the
    /// load. Default: true.
    pub fn eager(mut self, eager: bool) -> Self {
        self.eager = eager;
        self
    }

    /// Time for making one connection, up to the server's first frame. Default: 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Waits between attempts to connect to one instance, before 20 % of jitter. Default: from
    /// 100 ms to 750 ms, so that a call succeeds within a second of the first instance's return.
    /// gRPC waits up to 120 s. The cost is one or two packets a second per unreachable instance, up to
    /// the limits over the whole set:
    ///
    /// - While another instance is reachable, the waits grow further, up to 60 s: they double for an
    ///   instance that never had a connection, and are an eighth of the outage for one that had. At
    ///   most 100 of these attempts a second fail.
    /// - While none is reachable, at most 250 attempts a second fail. Half of them are for instances
    ///   that had a connection, as long as there are any; of each kind, those with the fewest failures
    ///   come first. So up to 180 instances are found within a second of their return, and one that
    ///   never had a connection, among 5 000 of its kind, within about 20 s.
    /// - While calls fail because none is reachable, and for a second after the last reachable one was
    ///   lost, the limit is 6 000: one that returns among 5 000 is found within a second. Attempts
    ///   without any answer are also limited by [`connect_parallel`](Self::connect_parallel).
    ///
    /// An instance that is new in the registry's answer is tried at once.
    pub fn connect_backoff(mut self, first: Duration, ceiling: Duration) -> Self {
        self.connect_backoff = Backoff::new(first, ceiling);
        self
    }

    /// Maximum number of connections being made at the same time. Default: 32. Attempts to instances
    /// that never had a connection take at most half of these places, so that one that restarts does
    /// not wait for those that hang.
    pub fn connect_parallel(mut self, connections: usize) -> Self {
        self.connect_parallel = connections;
        self
    }

    /// The `user-agent` of calls that have none. Default: this crate's name and version.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = Some(user_agent.into());
        self
    }

    /// A function that writes the context of a trace, such as W3C's `traceparent`, into the headers of each
    /// attempt. It is called inside the attempt's span, so that the server's span hangs under it. Default:
    /// none, and the headers of the request go out as they are. See [tracing](crate#tracing).
    ///
    /// ```
    /// # use discovery::Channel;
    /// let builder = Channel::builder("static://localhost:8975", "trim_service")
    ///     // With OpenTelemetry: the propagator's `inject_context` with `Span::current().context()`.
    ///     .propagate(|headers| {
    ///         let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    ///         headers.insert("traceparent", http::HeaderValue::from_static(context));
    ///     });
    /// ```
    pub fn propagate(mut self, inject: impl Fn(&mut HeaderMap) + Send + Sync + 'static) -> Self {
        self.propagate = Some(Arc::new(inject));
        self
    }

    /// Policy by method, balancer and more from a service config; see [`config`](crate::config) for what it
    /// sets and which setting counts. [`Channel::set_service_config`] replaces it later. Default: an empty
    /// one.
    #[cfg(feature = "service-config")]
    pub fn service_config(mut self, config: crate::config::ServiceConfig) -> Self {
        self.service_config = config;
        self
    }
}

impl ChannelBuilder {
    pub(super) fn new(source: Source, service: String) -> Self {
        Self::with_rules(source, service, Http2::default(), ())
    }

    /// Watches the health of this service on each connection, as gRFC A17 has it; the empty name stands
    /// for the server as a whole. An instance receives calls only while its standard health service,
    /// `grpc.health.v1.Health`, reports `SERVING`: a change takes effect as soon as the instance reports
    /// it, without the registry. Calls on their way are not cancelled.
    ///
    /// The first answer is awaited like the connection. If all instances report another status, calls
    /// fail with `UNAVAILABLE`, or wait if they wait for ready; those that the registry no longer offers
    /// and that report `SERVING` are used before. An instance without the health service
    /// (`UNIMPLEMENTED`) receives calls. A watch that ends begins again, at once after an answer and
    /// otherwise after the [`connect_backoff`](Self::connect_backoff); meanwhile the instance receives no
    /// calls. Each watch takes one stream of its connection. Default: health is not watched.
    pub fn health_service(mut self, service: impl Into<String>) -> Self {
        self.health = Some(service.into().into());
        self
    }

    /// Adds paths (`/pb.Trim/TrimSpace`) of methods that may be executed twice: they are also
    /// repeated after a timeout and after the policy's
    /// [`idempotent_codes`](RetryPolicy::idempotent_codes). Default: none.
    pub fn idempotent<T: Into<String>>(mut self, paths: impl IntoIterator<Item = T>) -> Self {
        let paths = paths.into_iter().map(Into::into);
        self.overrides.idempotent.extend(paths);
        self
    }

    /// The service's encoded `FileDescriptorSet`, as `protoc --descriptor_set_out` and tonic's build
    /// script write it. Methods with `option idempotency_level = NO_SIDE_EFFECTS` or `IDEMPOTENT`
    /// are [`idempotent`](Self::idempotent), and [`build`](Self::build) refuses an idempotent path
    /// that no service has. Calls of methods declared with `stream` have the caller's deadline only,
    /// and their response is handed out with its headers. Default: none.
    #[cfg(feature = "descriptors")]
    pub fn file_descriptor_set(
        mut self,
        encoded: impl Into<std::borrow::Cow<'static, [u8]>>,
    ) -> Self {
        self.descriptors = Some(encoded.into());
        self
    }

    /// Starts the registry's watch and the connections, and returns the channel without waiting for
    /// either: the first call waits for them until its deadline.
    ///
    /// # Errors
    ///
    /// If there is no tokio runtime, or if the registry's URL or a setting cannot work.
    pub fn build(self) -> Result<Channel, BuildError> {
        let protocol = ProtocolSettings {
            #[cfg(feature = "service-config")]
            dialect: Dialect::Grpc,
            factory: &|factory| factory,
            some_idempotent: false,
            min_capacity: MIN_CONCURRENT_STREAMS,
        };
        self.start(&protocol)
    }
}

/// The rules of another protocol.
#[cfg(feature = "http")]
impl<R> ChannelBuilder<R> {
    pub(crate) fn rules_mut(&mut self) -> &mut R {
        &mut self.rules
    }

    pub(crate) fn service(&self) -> &str {
        &self.query.service
    }

    /// Replaces the codes that are retried, which follow from the rules of the protocol.
    pub(crate) fn retry_codes(&mut self, codes: Vec<Code>, idempotent_codes: Vec<Code>) {
        self.retry.codes = codes;
        self.retry.idempotent_codes = idempotent_codes;
    }
}
