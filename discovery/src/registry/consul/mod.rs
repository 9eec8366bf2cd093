//! Consul: watches services by blocking queries and registers instances with the agent, over HTTP.
//!
//! * `config` is where Consul is: defaults, Consul's environment variables, the URL; `tls` whom to
//!   trust there.
//! * `client` is one HTTP call, bounded in time and size.
//! * `watch` follows one service's instances, `model` reads Consul's answers, `requests` limits their
//!   number.
//! * `register` puts one instance in and keeps it there.

mod client;
mod config;
mod model;
mod register;
#[cfg(feature = "tls")]
mod tls;
mod token_bucket;
mod watch;

use std::{fmt::Write as _, sync::Arc};

pub use self::config::Config;
use self::{client::Client, register::ConsulRegistration, watch::ConsulInstancer};
use super::{Instancer, Query, Registration, RegistrationClient, Registry, RegistryError, shared};

/// A Consul agent or cluster.
///
/// Nothing is sent before something is watched or registered; clones share their connections.
#[derive(Clone, Debug)]
pub struct Consul {
    config: Arc<Config>,
    client: Arc<Client>,
}

impl Consul {
    /// The Consul that `consul://HOST:PORT` names, or `consuls://HOST:PORT` for HTTPS. What the URL
    /// does not say is taken from Consul's environment variables, see [`Config::from_url`].
    ///
    /// # Errors
    ///
    /// When the URL is malformed, or as [`Consul::new`].
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        Self::new(&Config::from_url(url, |name| std::env::var_os(name))?)
    }

    /// The Consul of this configuration. Reads the certificate and token files it names, once.
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
}

impl Registry for Consul {
    fn name(&self) -> &str {
        self.client.name()
    }

    /// One watch is one request held open at Consul, which allows 200 connections per client
    /// address: equal queries to equally configured Consuls share one.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        client::pathable(&query.service)
            .map_err(|reason| self.invalid(&format!("the service's name {reason}")))?;
        if query.tags.iter().any(String::is_empty) {
            return Err(self.invalid("an empty tag is on no instance"));
        }
        let mut query = query.clone();
        if query.datacenter.is_none() {
            query.datacenter.clone_from(&self.config.datacenter);
        }
        // `Config` leaves secrets out of its Debug form, and they change the answers. The key never
        // leaves this process.
        let config = &self.config;
        let mut key = format!("{config:?} {query:?}");
        let _never_fails = write!(
            key,
            " {:?} {:?} {:?} {:?} {:?}",
            self.client.token(),
            config.http_auth,
            config.wait,
            config.change_interval,
            config.body_limit,
        );
        Ok(shared::join_or_start(key, || {
            ConsulInstancer::start(
                Arc::clone(&self.client),
                query,
                config.wait,
                config.change_interval,
            )
        }))
    }

    /// The instance goes to the agent that this Consul's address names, which runs its checks.
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        let client = Arc::clone(&self.client);
        Ok(Arc::new(ConsulRegistration::new(client, &registration)?))
    }
}
