//! Consul as a registry.

use std::{fmt::Debug, sync::Arc};

use super::{
    client::Client,
    config::{Config, datacenters},
    path::pathable,
    register::ConsulRegistration,
    services::services,
    watch::{self, Datacenters},
};
use crate::{
    future::BoxFuture,
    registry::{
        Instancer, Query, Registration, RegistrationClient, Registry, RegistryError, shared,
    },
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
    /// The Consul at `consul://HOST:PORT`, or at `consuls://HOST:PORT` for HTTPS, with a path and settings as
    /// [`Config::from_url`] reads them. The other settings come from Consul's environment variables, see
    /// [`Config::from_url`].
    ///
    /// # Errors
    ///
    /// When the URL is malformed, or as [`Consul::new`].
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        Self::new(&Config::from_url(url, |name| std::env::var_os(name))?)
    }

    /// The Consul of this configuration. Reads the certificate and token files, and reads them again when
    /// they change; the token's also when Consul denies a request.
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
        RegistryError::invalid_setting(self.name(), reason)
    }

    /// Starts or joins the watch of one datacenter.
    fn watch_one(&self, query: Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        let key = self.watch_key(&query);
        shared::join_or_start(key, &query.service.clone(), || {
            watch::start(&self.client, query, &self.config)
        })
    }

    /// A key that differs wherever the answers to the query may differ.
    fn watch_key(&self, query: &Query) -> String {
        let config = &self.config;
        let others: [&dyn Debug; 5] = [
            &config.token,
            &config.http_auth,
            &config.wait,
            &config.change_interval,
            &config.body_limit,
        ];
        shared::watch_key(config, &others, query)
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
    /// [`RegistryError::InvalidSetting`] for a service name, tag or datacenter that Consul cannot look up,
    /// [`RegistryError::NoRuntime`] outside a tokio runtime.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        pathable(&query.service)
            .map_err(|reason| self.invalid(&format!("the service name {reason}")))?;
        if query.tags.iter().any(String::is_empty) {
            return Err(self.invalid("a tag is empty; Consul finds no instance for it"));
        }
        if self.config.prepared && !query.passing_only {
            return Err(self.invalid(
                "a prepared query leaves critical instances out; ask for passing instances only",
            ));
        }
        let chosen = query.datacenter.as_ref();
        let Some(list) = chosen.or(self.config.datacenter.as_ref()) else {
            return self.watch_one(query.clone());
        };
        let names = datacenters(list).map_err(|reason| self.invalid(&reason))?;
        if let [name] = &names[..] {
            return self.watch_one(query.clone().with_datacenter(name));
        }
        let watch = |name: String| {
            let watch = self.watch_one(query.clone().with_datacenter(&name))?;
            Ok((name, watch))
        };
        let watches = names.into_iter().map(watch);
        let watches = watches.collect::<Result<Vec<_>, RegistryError>>()?;
        let key = self.watch_key(&query.clone().with_datacenter(list));
        shared::join_or_start(key, &query.service, || {
            Datacenters::join(&query.service, watches)
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
    fn services(&self) -> BoxFuture<'_, Result<Vec<String>, RegistryError>> {
        Box::pin(services(&self.client, &self.config))
    }
}
