//! Consul as a registry.

use std::{fmt::Write as _, sync::Arc};

use super::{
    client::{Client, pathable},
    config::Config,
    register::ConsulRegistration,
    watch,
};
use crate::registry::{
    Instancer, Query, Registration, RegistrationClient, Registry, RegistryError, shared,
};

/// A Consul agent or cluster.
///
/// It sends nothing before a watch or a registration starts. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Consul {
    config: Arc<Config>,
    client: Arc<Client>,
}

impl Consul {
    /// The Consul at `consul://HOST:PORT`, or at `consuls://HOST:PORT` for HTTPS. The other settings
    /// come from Consul's environment variables, see [`Config::from_url`].
    ///
    /// # Errors
    ///
    /// When the URL is malformed, or as [`Consul::new`].
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        Self::new(&Config::from_url(url, |name| std::env::var_os(name))?)
    }

    /// The Consul of this configuration. Reads the certificate and token files once.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] when a value or a file cannot be used.
    pub fn new(config: &Config) -> Result<Self, RegistryError> {
        config.validate()?;
        Ok(Self {
            client: Arc::new(Client::new(config)?),
            config: Arc::new(config.clone()),
        })
    }

    fn invalid(&self, reason: &str) -> RegistryError {
        RegistryError::InvalidSetting {
            registry: self.name().to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// A key that differs wherever the answers to the query may differ.
    fn watch_key(&self, query: &Query) -> String {
        let config = &self.config;
        let mut key = format!("{config:?} {query:?}");
        // The Debug form of `Config` leaves these out; secrets change the answers as well. The key
        // does not leave this process.
        let _never_fails = write!(
            key,
            " {:?} {:?} {:?} {:?} {:?}",
            self.client.token(),
            config.http_auth,
            config.wait,
            config.change_interval,
            config.body_limit,
        );
        key
    }
}

impl Registry for Consul {
    fn name(&self) -> &str {
        self.client.name()
    }

    /// Equal queries to equally configured Consuls share one watch. A watch holds one request open,
    /// and Consul allows 200 connections per client address.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for a service name or tag that Consul cannot look up,
    /// [`RegistryError::NoRuntime`] outside a tokio runtime.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        pathable(&query.service)
            .map_err(|reason| self.invalid(&format!("the service name {reason}")))?;
        if query.tags.iter().any(String::is_empty) {
            return Err(self.invalid("a tag is empty; Consul finds no instance for it"));
        }
        let mut query = query.clone();
        if query.datacenter.is_none() {
            query.datacenter.clone_from(&self.config.datacenter);
        }
        shared::join_or_start(self.watch_key(&query), &query.service.clone(), || {
            watch::start(&self.client, query, &self.config)
        })
    }

    /// The registration goes to the agent at this Consul's address. That agent runs its checks.
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        let client = Arc::clone(&self.client);
        Ok(Arc::new(ConsulRegistration::new(client, registration)?))
    }
}
