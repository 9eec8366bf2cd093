//! Registries: the services' instances, and the registration of instances.
//!
//! A registry offers two things:
//!
//! * an [`Instancer`] watches one service and publishes whole [`InstanceSet`]s;
//! * a [`RegistrationClient`] registers and deregisters one instance. The
//!   [`Registrar`](crate::Registrar) drives it for the life of a process.
//!
//! A registry does not depend on balancing or connections.
//!
//! | registry | URL | Cargo feature |
//! |---|---|---|
//! | [`StaticRegistry`] | `static://HOST:PORT,HOST:PORT` | none |
//! | `consul::Consul` | `consul://HOST:PORT[/PATH]`, `consuls://HOST:PORT[/PATH]` (HTTPS), with `?dc=A,B`, `?filter=EXPRESSION` or `?prepared=true` | `consul` (default) |
//! | `dns::Dns` | `dns://[RESOLVER:PORT]/NAME` (SRV), `dns+a://[RESOLVER:PORT]/NAME:PORT` (addresses); lists only | `dns` |
//! | `embedded::Embedded` | `embedded://[FOLDER]` | `embedded` |
//! | `etcd::Etcd` | `etcd://HOST:PORT,HOST:PORT/PREFIX`, `etcds://...` (TLS) | `etcd` |
//! | `eureka::Eureka` | `eureka://HOST:PORT,HOST:PORT/PATH`, `eurekas://...` (HTTPS), with `?vip=true` | `eureka` |
//! | `zookeeper::ZooKeeper` | `zookeeper://HOST:PORT,...`, `zookeepers://HOST:PORT,...` (TLS) | `zookeeper` |
//!
//! [`Union`] and [`OrElse`] make one registry of several.
//!
//! [`connect`] opens the registry that a URL names; [`Schemes`] adds schemes of one's own. To use
//! another registry, implement [`Registry`] and pass it to
//! [`Channel::from_registry`](crate::Channel::from_registry). [`WatchDriver`] makes an [`Instancer`]
//! of a [`Source`]: the next whole set, or an error.

#[cfg(any(
    feature = "consul",
    feature = "etcd",
    feature = "eureka",
    feature = "zookeeper"
))]
mod checks;
mod combined;
#[cfg(any(
    feature = "consul",
    feature = "etcd",
    feature = "eureka",
    feature = "zookeeper"
))]
mod conflict;
mod connect;
mod error;
#[cfg(any(feature = "consul", feature = "eureka"))]
mod http;
mod instance_set;
mod listing;
mod query;
mod registration;
pub(crate) mod shared;
mod static_registry;
#[cfg(all(
    feature = "tls",
    any(
        feature = "consul",
        feature = "etcd",
        feature = "eureka",
        feature = "zookeeper"
    )
))]
mod tls;
#[cfg(any(feature = "consul", feature = "etcd", feature = "zookeeper"))]
mod token_bucket;
mod url;
#[cfg(any(feature = "consul", feature = "etcd", feature = "eureka"))]
mod variables;
mod watch;

#[cfg(feature = "consul")]
pub mod consul;
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(all(feature = "embedded", unix))]
pub mod embedded;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "eureka")]
pub mod eureka;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

use std::sync::Arc;

pub use self::{
    combined::{OrElse, Union},
    connect::{Schemes, connect},
    error::RegistryError,
    instance_set::InstanceSet,
    listing::Listing,
    query::Query,
    registration::{Check, CheckState, GrpcCheck, Registration},
    static_registry::StaticRegistry,
    url::RegistryUrl,
    watch::{Source, Update, WatchDriver},
};
use crate::{future::BoxFuture, watch::Receiver};

/// One registry server or cluster.
///
/// # Example
///
/// A registry of one list for every service, without registration:
///
/// ```
/// use std::sync::Arc;
///
/// use discovery::{
///     Instance,
///     registry::{
///         InstanceSet, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
///     },
///     watch,
/// };
///
/// struct Listing(watch::Sender<InstanceSet>);
///
/// struct Watch(watch::Receiver<InstanceSet>);
///
/// impl Instancer for Watch {
///     fn watch(&self) -> watch::Receiver<InstanceSet> {
///         self.0.clone()
///     }
/// }
///
/// impl Registry for Listing {
///     fn name(&self) -> &str {
///         "listing"
///     }
///
///     fn instancer(&self, _query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
///         Ok(Arc::new(Watch(self.0.subscribe())))
///     }
///
///     fn registration(
///         &self,
///         registration: Registration,
///     ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
///         Err(RegistryError::Unsupported {
///             registry: self.name().to_owned(),
///             action: format!("register {}", registration.instance.id),
///         })
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listing = Listing(watch::Sender::new(InstanceSet::default()));
/// let sets = listing.instancer(&Query::new("trim_service"))?.watch();
/// listing.0.send_replace(InstanceSet::confirmed([Instance::new("10.0.0.1", 8975)?]));
/// assert_eq!(sets.borrow().instances[0].host, "10.0.0.1");
/// # Ok(())
/// # }
/// ```
pub trait Registry: Send + Sync + 'static {
    /// The registry's URL without credentials, for messages and logs.
    fn name(&self) -> &str;

    /// Starts the watch of one service, or joins a running one. The watch ends when the last
    /// handle is dropped.
    ///
    /// # Errors
    ///
    /// When this kind of registry cannot answer the query, or when the call is outside a tokio
    /// runtime and the registry needs one. An unreachable registry is not an error here: the
    /// [`InstanceSet`] reports it.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError>;

    /// Prepares the registration of one instance. It sends nothing.
    ///
    /// # Errors
    ///
    /// When this kind of registry cannot hold the registration.
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError>;

    /// The names of the services in the registry, sorted, as far as the credentials allow. It is for
    /// people and tools, such as a message about a misspelt name; it may read every entry.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unsupported`] by default: for a registry that cannot list its services, such as
    /// DNS. [`RegistryError::NoRuntime`] outside a tokio runtime.
    fn services(&self) -> BoxFuture<'_, Result<Vec<String>, RegistryError>> {
        let registry = self.name().to_owned();
        Box::pin(async {
            Err(RegistryError::Unsupported {
                registry,
                action: "list its services".to_owned(),
            })
        })
    }
}

/// The watch of one service in one registry. It reconnects and backs off by itself.
///
/// # Example
///
/// A source that another part of the program feeds:
///
/// ```
/// use discovery::{
///     registry::{InstanceSet, Instancer},
///     watch,
/// };
///
/// struct Feed(watch::Sender<InstanceSet>);
///
/// impl Instancer for Feed {
///     fn watch(&self) -> watch::Receiver<InstanceSet> {
///         self.0.subscribe()
///     }
///
///     // The program itself removes instances, so a removal is never a registry's failure.
///     fn authoritative(&self) -> bool {
///         true
///     }
/// }
///
/// let feed = Feed(watch::Sender::new(InstanceSet::default()));
/// assert!(feed.watch().borrow().confirmed.is_none());
/// ```
pub trait Instancer: Send + Sync + 'static {
    /// The current set and every later one. Each value is the whole set, not a difference.
    fn watch(&self) -> Receiver<InstanceSet>;

    /// True if a removed instance is certainly gone. Channels then remove it at once, without
    /// [`RemovalProtection`](crate::RemovalProtection). Default: false, because most registries
    /// also lose instances by their own failures.
    fn authoritative(&self) -> bool {
        false
    }

    /// The datacenters whose instances are listed together, in order of preference. Channels call the
    /// first that has working instances. Default: empty, without an order.
    fn datacenters(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The calls to one registry about one registration.
///
/// A call that is cancelled leaves the instance either registered or not. Every call may be
/// repeated.
///
/// # Example
///
/// A registry in memory, driven by a [`Registrar`](crate::Registrar):
///
/// ```
/// use std::{
///     collections::BTreeSet,
///     sync::{Arc, Mutex, PoisonError},
///     time::Duration,
/// };
///
/// use discovery::{
///     BoxFuture, Registrar,
///     registry::{RegistrationClient, RegistryError},
/// };
///
/// #[derive(Default)]
/// struct Memory(Mutex<BTreeSet<String>>);
///
/// impl Memory {
///     fn change(&self, change: impl FnOnce(&mut BTreeSet<String>)) {
///         change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
///     }
/// }
///
/// impl RegistrationClient for Memory {
///     fn id(&self) -> &str {
///         "trim-1"
///     }
///
///     fn registry(&self) -> &str {
///         "memory"
///     }
///
///     fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
///         Box::pin(async {
///             self.change(|ids| _ = ids.insert(self.id().to_owned()));
///             Ok(())
///         })
///     }
///
///     fn maintain(&self) -> BoxFuture<'_, RegistryError> {
///         // Memory does not lose a registration.
///         Box::pin(std::future::pending())
///     }
///
///     fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
///         Box::pin(async {
///             self.change(|ids| _ = ids.remove(self.id()));
///             Ok(())
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Arc::new(Memory::default());
/// let registrar = Registrar::start(memory.clone())?;
/// registrar.state().wait_for(|state| state.is_registered()).await?;
/// memory.change(|ids| assert!(ids.contains("trim-1")));
/// registrar.deregister(Duration::from_secs(1)).await?;
/// memory.change(|ids| assert!(ids.is_empty()));
/// # Ok(())
/// # }
/// ```
pub trait RegistrationClient: Send + Sync + 'static {
    /// The registered instance's ID.
    fn id(&self) -> &str;

    /// The registry's name, for messages.
    fn registry(&self) -> &str;

    /// Registers the instance as healthy. Repeating the call changes nothing.
    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// Keeps the registration alive with heartbeats, leases or new checks. Ends with the reason
    /// when the registry no longer holds the registration or cannot be asked.
    fn maintain(&self) -> BoxFuture<'_, RegistryError>;

    /// Deregisters the instance. An instance that is not registered is not an error.
    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// The state of the registry's health check of this instance. [`maintain`](Self::maintain)
    /// keeps it current. Default: `None`, for a registry that does not report it.
    fn check_state(&self) -> Option<Receiver<CheckState>> {
        None
    }
}
