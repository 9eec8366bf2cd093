//! Eureka as a registry.

use std::sync::Arc;

use reqwest::Method;

use super::{
    client::{Client, Request},
    config::Config,
    entry::{applications, check_service},
    register::EurekaRegistration,
    watch::PollSource,
};
use crate::{
    future::BoxFuture,
    registry::{
        Instancer, Query, Registration, RegistrationClient, Registry, RegistryError, WatchDriver,
        http::Answer, shared,
    },
};

/// A Eureka server or several peers.
///
/// It sends nothing before a watch or a registration starts. Clones share their connections, and prefer
/// the same peer.
#[derive(Clone, Debug)]
pub struct Eureka {
    client: Arc<Client>,
}

impl Eureka {
    /// The Eureka at `eureka://HOST:PORT,.../PATH`, or at `eurekas://HOST:PORT,.../PATH` for HTTPS. See
    /// [`Config::from_url`].
    ///
    /// # Errors
    ///
    /// When the URL is malformed, or as [`Eureka::new`].
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        Self::new(&Config::from_url(url, |name| std::env::var_os(name))?)
    }

    /// The Eureka of this configuration. Reads the certificate files, and reads them again when they
    /// change.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] when a value or a file cannot be used.
    pub fn new(config: &Config) -> Result<Self, RegistryError> {
        config.validate()?;
        Ok(Self {
            client: Arc::new(Client::new(Arc::new(config.clone()))?),
        })
    }

    fn invalid(&self, reason: String) -> RegistryError {
        RegistryError::invalid_setting(self.name(), reason)
    }
}

impl Registry for Eureka {
    fn name(&self) -> &str {
        self.client.name()
    }

    /// Equal queries to equally configured Eurekas share one watch.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for a service name that Eureka does not take, or for a
    /// datacenter. [`RegistryError::NoRuntime`] outside a tokio runtime.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        check_service(&query.service).map_err(|reason| self.invalid(reason))?;
        if let Some(datacenter) = &query.datacenter {
            return Err(self.invalid(format!(
                "Eureka has no datacenters; leave out {datacenter:?}, or name its own servers"
            )));
        }
        let config = self.client.config();
        let key = shared::watch_key(config, &[&config.user, &config.password], query);
        shared::join_or_start(key, &query.service, || {
            let source = PollSource::new(Arc::clone(&self.client), query.clone());
            WatchDriver::start(self.name(), &query.service, source)
        })
    }

    /// The lease is [`Config::lease`] with [`Check::Default`](crate::registry::Check::Default) and
    /// [`Check::None`](crate::registry::Check::None), and the TTL with
    /// [`Check::ttl`](crate::registry::Check::ttl), rounded up to an even number of seconds.
    /// [`Registration::deregister_critical_after`] has no effect: the end of the lease removes the
    /// instance.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for a gRPC check, which Eureka lacks, or for an instance that
    /// Eureka cannot hold.
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        let client = Arc::clone(&self.client);
        Ok(Arc::new(EurekaRegistration::new(client, &registration)?))
    }
    /// The applications, in upper case as Eureka keeps them. Reads all entries.
    fn services(&self) -> BoxFuture<'_, Result<Vec<String>, RegistryError>> {
        Box::pin(async {
            let request = Request::new(Method::GET, "/apps".to_owned(), "list the services");
            let read = |answer: Answer| std::future::ready(applications(&answer.body));
            self.client.call(&request, read).await
        })
    }
}
