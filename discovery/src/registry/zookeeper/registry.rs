//! ZooKeeper as a registry.

use std::{fmt, sync::Arc};

use tokio::runtime::Handle;

use super::{
    client::{Ensemble, Failure},
    config::Config,
    path,
    protocol::Code,
    register::NodeRegistration,
    watch::{NodeSource, Nodes},
};
use crate::{
    future::BoxFuture,
    registry::{
        Instancer, Query, Registration, RegistrationClient, Registry, RegistryError, WatchDriver,
        shared,
    },
};

/// A ZooKeeper server or ensemble.
///
/// It sends nothing before a watch or a registration starts.
#[derive(Clone)]
pub struct ZooKeeper {
    name: String,
    /// With the base path as it is used.
    config: Arc<Config>,
    ensemble: Arc<Ensemble>,
}

impl ZooKeeper {
    /// The ZooKeeper at `zookeeper://HOST:PORT,...`, or at `zookeepers://HOST:PORT,...` for TLS. See
    /// [`Config::from_url`].
    ///
    /// # Errors
    ///
    /// When the URL is malformed, or as [`ZooKeeper::new`].
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        Self::new(&Config::from_url(url)?)
    }

    /// The ZooKeeper of this configuration. Reads the certificate files once.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] when a value or a file cannot be used.
    pub fn new(config: &Config) -> Result<Self, RegistryError> {
        let (servers, base_path) = config.validate()?;
        let config = config.clone().with_base_path(base_path);
        Ok(Self {
            name: config.name(),
            ensemble: Arc::new(Ensemble::new(servers, &config)?),
            config: Arc::new(config),
        })
    }

    /// The names below the base path, sorted.
    async fn children(&self) -> Result<Vec<String>, Failure> {
        let timeout = self.config.session_timeout;
        let connection = self.ensemble.connect(timeout, None).await?;
        let mut names = match connection.children(&self.config.base_path).await {
            Err(Failure::Refused(Code::NO_NODE)) => Vec::new(),
            names => names?,
        };
        // A session that is not closed ends by its timeout.
        let _closed = connection.close().await;
        names.sort_unstable();
        Ok(names)
    }

    fn invalid(&self, reason: String) -> RegistryError {
        RegistryError::invalid_setting(self.name.clone(), reason)
    }
}

impl Registry for ZooKeeper {
    fn name(&self) -> &str {
        &self.name
    }

    /// Equal queries with equal configurations share one watch. A watch holds one connection
    /// open, and a server allows 60 connections per client address by default (`maxClientCnxns`).
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for a service name that ZooKeeper does not take, for a
    /// datacenter, and for tags in the layout `gokit`. [`RegistryError::NoRuntime`] outside a tokio
    /// runtime.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        let path = path::child(&self.config.base_path, &query.service)
            .map_err(|reason| self.invalid(format!("the service name {reason}")))?;
        if let Some(datacenter) = &query.datacenter {
            return Err(self.invalid(format!(
                "ZooKeeper has no datacenters; leave out {datacenter:?}, or name its own servers"
            )));
        }
        let layout = self.config.layout;
        layout.check(query).map_err(|reason| self.invalid(reason))?;
        let config = &self.config;
        let key = shared::watch_key(config, &[&config.credentials], query);
        shared::join_or_start(key, &query.service, || {
            let source = NodeSource::new(Nodes {
                ensemble: Arc::clone(&self.ensemble),
                registry: self.name.clone(),
                path,
                layout,
                query: query.clone(),
                timeout: self.config.session_timeout,
            });
            WatchDriver::start(&self.name, &query.service, source)
        })
    }

    /// The registration has a session and a connection of its own.
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        let ensemble = Arc::clone(&self.ensemble);
        let config = &self.config;
        let registration = NodeRegistration::new(&self.name, config, ensemble, &registration)?;
        Ok(Arc::new(registration))
    }

    /// The nodes below the base path. Each listing opens a session of its own.
    fn services(&self) -> BoxFuture<'_, Result<Vec<String>, RegistryError>> {
        Box::pin(async {
            let action = "list the services";
            if Handle::try_current().is_err() {
                return Err(RegistryError::NoRuntime {
                    action: action.to_owned(),
                });
            }
            let names = self.children().await;
            names.map_err(|failure| failure.into_error(&self.name, action))
        })
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
