//! Where instances come from and where they are put: the traits every registry implements, and the
//! URL that chooses one.
//!
//! A registry knows nothing of balancing or connections. It offers two things:
//!
//! * an [`Instancer`], which watches one service and publishes whole [`InstanceSet`]s;
//! * a [`RegistrationClient`], which puts one instance in and takes it out; the
//!   [`Registrar`](crate::Registrar) drives it for the life of a process.
//!
//! Adding a registry takes a folder beside `consul/`, a Cargo feature and a line in [`connect`].

mod error;
pub(crate) mod shared;
mod static_registry;

#[cfg(feature = "consul")]
pub mod consul;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::Instant};

pub use self::{error::RegistryError, static_registry::StaticRegistry};
use crate::instance::Instance;

/// One registry server or cluster.
pub trait Registry: Send + Sync + 'static {
    /// Its URL without credentials, as messages and logs name it.
    fn name(&self) -> &str;

    /// Starts (or joins) the watch of one service. The watch ends when the last handle is dropped.
    ///
    /// # Errors
    ///
    /// When the query cannot be put to this kind of registry. That the registry is away is no
    /// error here: the set says so.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError>;

    /// Prepares the registration of one instance; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When the registration is one this kind of registry cannot hold.
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError>;
}

/// Which instances of which service to watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// The service's name in the registry.
    pub service: String,
    /// An instance must carry all of them. Default: none.
    pub tags: Vec<String>,
    /// Only instances whose health checks all pass. Default: true.
    pub passing_only: bool,
    /// Another datacenter than the registry's own. Default: none.
    pub datacenter: Option<String>,
}

impl Query {
    /// All passing instances of `service`.
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            tags: Vec::new(),
            passing_only: true,
            datacenter: None,
        }
    }
}

/// One registry's watch of one service. It reconnects and backs off by itself.
pub trait Instancer: Send + Sync + 'static {
    /// The current set and every later one. Each value is the whole set, not a difference.
    fn watch(&self) -> watch::Receiver<InstanceSet>;
}

/// What is known of a service's instances.
///
/// A failure of the registry leaves [`instances`](Self::instances) as they were and sets
/// [`error`](Self::error); the next good answer clears it.
#[derive(Clone, Debug, Default)]
pub struct InstanceSet {
    /// The last good answer, sorted by ID, without duplicates or malformed entries.
    pub instances: Arc<[Arc<Instance>]>,
    /// When the registry last gave a good answer. `None`: never yet.
    pub confirmed: Option<Instant>,
    /// Why the registry could not be asked since then.
    pub error: Option<Arc<RegistryError>>,
}

impl InstanceSet {
    /// A good answer, received now. Sorts by ID and drops all but the first of equal IDs.
    #[must_use]
    pub fn confirmed(mut instances: Vec<Instance>) -> Self {
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances.dedup_by(|later, first| later.id == first.id);
        Self {
            instances: instances.into_iter().map(Arc::new).collect(),
            confirmed: Some(Instant::now()),
            error: None,
        }
    }
}

/// An instance and how the registry is to watch over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What to register.
    pub instance: Instance,
    /// How the registry learns that the instance is well.
    pub check: Check,
    /// How long a check may stay critical before the registry drops the instance by itself.
    /// `None`: never. Consul's minimum is one minute.
    pub deregister_critical_after: Option<Duration>,
}

/// How a registry learns that an instance is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The registry calls the instance's `grpc.health.v1.Health/Check`.
    Grpc {
        /// Time between two checks.
        interval: Duration,
        /// Time one check may take.
        timeout: Duration,
    },
    /// The instance reports itself; silence longer than `ttl` counts as sick.
    Ttl {
        /// The longest silence. Heartbeats are sent three times as often.
        ttl: Duration,
    },
    /// The instance counts as well for as long as it is registered.
    None,
}

/// The calls one registry takes about one registration.
///
/// Cancelling any of them leaves the registry in either state; each may be repeated.
pub trait RegistrationClient: Send + Sync + 'static {
    /// The registered instance's ID.
    fn id(&self) -> &str;

    /// The registry's name, for messages.
    fn registry(&self) -> &str;

    /// Puts the instance in, healthy. Repeating it changes nothing.
    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// Keeps the registration alive (heartbeats, leases, brought-back checks) for as long as the
    /// registry holds it, and ends with the reason when it does not or cannot be asked.
    fn maintain(&self) -> BoxFuture<'_, RegistryError>;

    /// Takes the instance out. One that is not in is no error.
    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>>;
}

/// The registry that a URL names: `consul://localhost:8500`, `static://host:port,host:port`.
///
/// # Errors
///
/// When the URL is malformed, its scheme unknown or its feature not compiled in.
pub fn connect(url: &str) -> Result<Arc<dyn Registry>, RegistryError> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| {
        RegistryError::invalid_url(
            url,
            "expected SCHEME://..., for example consul://localhost:8500",
        )
    })?;
    match scheme {
        #[cfg(feature = "consul")]
        "consul" | "consuls" => Ok(Arc::new(consul::Consul::from_url(url)?)),
        "static" => Ok(Arc::new(StaticRegistry::parse(rest)?)),
        _ => Err(RegistryError::invalid_url(
            url,
            "unknown scheme; this build knows consul:// and static://",
        )),
    }
}
