//! One registration: an ephemeral node in a session of its own.
//!
//! `node` creates the node and finds out that it is lost.

mod node;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    runtime::Handle,
    sync::{Mutex, watch},
    time::Instant,
};
use tracing::info;

use self::node::Node;
use super::{
    client::{Connection, Ensemble, Failure, Lost},
    config::{Config, check_timeout},
    path,
    protocol::{Request, handshake::Session},
};
use crate::{
    future::BoxFuture,
    registry::{Check, Registration, RegistrationClient, RegistryError, conflict::Conflicts},
};

/// A connection that ended before this time is reported, so that the registrar waits before the next.
const SETTLED: Duration = Duration::from_secs(1);

pub(super) struct NodeRegistration {
    registry: String,
    ensemble: Arc<Ensemble>,
    id: String,
    node: Node,
    /// The wish for the session's timeout.
    timeout: Duration,
    held: Mutex<Held>,
    /// Changes when the node is to be removed, which ends [`RegistrationClient::maintain`].
    removals: watch::Sender<u64>,
    conflicts: Conflicts,
}

/// The session of the registration, and the connection that keeps it alive.
#[derive(Default)]
struct Held {
    session: Option<Session>,
    connection: Option<Connection>,
    /// The ID of the session that has created the node.
    creator: Option<i64>,
}

impl NodeRegistration {
    /// # Errors
    ///
    /// `Unsupported` for a gRPC check, `InvalidSetting` for an instance that the layout or ZooKeeper
    /// cannot hold.
    pub(super) fn new(
        registry: &str,
        config: &Config,
        ensemble: Arc<Ensemble>,
        registration: &Registration,
    ) -> Result<Self, RegistryError> {
        let instance = &registration.instance;
        let id = &instance.id;
        let invalid = |reason: String| {
            RegistryError::invalid_setting(registry, format!("cannot register {id:?}: {reason}"))
        };
        instance.validate()?;
        let timeout = match &registration.check {
            Check::Ttl { ttl } => *ttl,
            Check::Default | Check::None => config.session_timeout,
            Check::Grpc(_) => {
                return Err(RegistryError::Unsupported {
                    registry: registry.to_owned(),
                    action: format!(
                        "check {id} by gRPC calls: ZooKeeper has no checks, only the session's \
                         timeout; use the check ttl or the registry's default"
                    ),
                });
            }
        };
        check_timeout(timeout).map_err(invalid)?;
        let service = path::child(&config.base_path, &instance.service)
            .map_err(|reason| invalid(format!("the service name {reason}")))?;
        let path =
            path::child(&service, id).map_err(|reason| invalid(format!("the ID {reason}")))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let data = config.layout.encode(instance, now).map_err(invalid)?;
        if data.len() > Request::LIMIT / 2 {
            let reason = format!("its metadata takes {} bytes, over 512 KiB", data.len());
            return Err(invalid(reason));
        }
        Ok(Self {
            registry: registry.to_owned(),
            ensemble,
            id: id.clone(),
            node: Node {
                path,
                data,
                access: config.rights(),
            },
            timeout,
            held: Mutex::default(),
            removals: watch::Sender::new(0),
            conflicts: Conflicts::default(),
        })
    }

    fn error(&self, failure: Failure, verb: &str) -> RegistryError {
        failure.into_error(&self.registry, &format!("{verb} {}", self.id))
    }

    /// # Errors
    ///
    /// `NoRuntime` outside a tokio runtime.
    fn in_runtime(&self, verb: &str) -> Result<(), RegistryError> {
        match Handle::try_current() {
            Ok(_) => Ok(()),
            Err(_) => Err(RegistryError::NoRuntime {
                action: format!("{verb} {}", self.id),
            }),
        }
    }

    async fn create(&self) -> Result<(), RegistryError> {
        self.in_runtime("register")?;
        let mut held = self.held.lock().await;
        let mut created = self.create_once(&mut held).await;
        if let Err(Failure::Lost(_)) = created {
            // The connection may have ended long ago.
            created = self.create_once(&mut held).await;
        }
        match created {
            Ok(None) => Ok(()),
            Ok(Some(found)) => Err(self.overwritten(found)),
            Err(failure) => Err(self.error(failure, "register")),
        }
    }

    /// The registration that is there instead, if it cannot be replaced.
    async fn create_once(&self, held: &mut Held) -> Result<Option<String>, Failure> {
        let connection = held.connection(&self.ensemble, self.timeout).await?;
        let session = connection.session().id;
        let created = self.node.create(connection).await;
        match &created {
            Ok(None) => held.creator = Some(session),
            Err(failure) if failure.is_lost() => held.connection = None,
            _ => {}
        }
        created
    }

    /// Keeps the session alive until the node is lost, or no server answers.
    async fn until_lost(&self) -> RegistryError {
        if let Err(error) = self.in_runtime("keep") {
            return error;
        }
        let since = Instant::now();
        let mut removals = self.removals.subscribe();
        let mut held = self.held.lock().await;
        let lost = tokio::select! {
            lost = self.follow(&mut held) => lost,
            _ = removals.changed() => return self.forgotten(),
        };
        let expired = held.session.is_none();
        drop(held);
        if !expired {
            // The node alone was lost: another process may have the same ID.
            self.conflicts.pause(&lost, since.elapsed()).await;
        }
        lost
    }

    async fn follow(&self, held: &mut Held) -> RegistryError {
        loop {
            let Some(session) = &held.session else {
                return self.forgotten();
            };
            if held.connection.as_ref().is_none_or(Connection::has_ended) {
                match self.ensemble.connect(self.timeout, Some(session)).await {
                    Ok(connection) => held.connection = Some(connection),
                    Err(Failure::Expired) => {
                        *held = Held::default();
                        return self.forgotten();
                    }
                    Err(failure) => return self.error(failure, "keep"),
                }
            }
            let Some(connection) = &mut held.connection else {
                return self.forgotten();
            };
            let since = Instant::now();
            match self.node.until_lost(connection).await {
                Ok(None) => return self.forgotten(),
                Ok(Some(found)) => return self.overwritten(found),
                Err(failure) if failure.is_lost() && since.elapsed() >= SETTLED => {
                    info!(instance = self.id, "resumes the session: {failure}");
                    held.connection = None;
                }
                Err(failure) => {
                    held.connection = None;
                    return self.error(failure, "keep");
                }
            }
        }
    }

    async fn remove(&self) -> Result<(), RegistryError> {
        self.in_runtime("deregister")?;
        self.removals.send_modify(|removals| *removals += 1);
        let mut held = self.held.lock().await;
        let creator = held.creator;
        let removed = async {
            let connection = held.connection(&self.ensemble, self.timeout).await?;
            if creator != Some(connection.session().id) {
                // The node may be that of a process that was killed.
                self.node.delete(connection).await?;
            }
            connection.close().await
        };
        match removed.await {
            Ok(()) => {
                *held = Held::default();
                Ok(())
            }
            Err(failure) => {
                held.connection = None;
                Err(self.error(failure, "deregister"))
            }
        }
    }

    fn forgotten(&self) -> RegistryError {
        RegistryError::Forgotten {
            registry: self.registry.clone(),
            id: self.id.clone(),
        }
    }

    fn overwritten(&self, found: String) -> RegistryError {
        RegistryError::Overwritten {
            registry: self.registry.clone(),
            id: self.id.clone(),
            found,
        }
    }
}

impl Held {
    /// The connection, or a new one. It resumes the session, or opens one if that has expired.
    async fn connection(
        &mut self,
        ensemble: &Ensemble,
        timeout: Duration,
    ) -> Result<&Connection, Failure> {
        if self.connection.as_ref().is_none_or(Connection::has_ended) {
            let connection = ensemble.reconnect(timeout, &mut self.session).await?;
            self.connection = Some(connection);
        }
        self.connection.as_ref().ok_or(Failure::Lost(Lost::Closed))
    }
}

impl RegistrationClient for NodeRegistration {
    fn id(&self) -> &str {
        &self.id
    }

    fn registry(&self) -> &str {
        &self.registry
    }

    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(self.create())
    }

    fn maintain(&self) -> BoxFuture<'_, RegistryError> {
        Box::pin(self.until_lost())
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(self.remove())
    }
}
