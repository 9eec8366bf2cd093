//! DNS as a registry.

use std::sync::Arc;

use super::{
    client::Servers,
    config::Config,
    resolver::{Lookup, Resolver},
    template::Template,
    watch::DnsSource,
};
use crate::registry::{
    Instancer, Query, Registration, RegistrationClient, Registry, RegistryError, WatchDriver,
    shared,
};

/// The instances that DNS lists for a name.
///
/// It sends nothing before a watch starts.
#[derive(Clone, Debug)]
pub struct Dns {
    name: String,
    config: Config,
    template: Template,
}

impl Dns {
    /// The names at `dns://[RESOLVER[:PORT]]/NAME` or `dns+a://[RESOLVER[:PORT]/]NAME:PORT`. See
    /// [`Config::from_url`].
    ///
    /// # Errors
    ///
    /// When the URL is malformed.
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        Self::new(&Config::from_url(url)?)
    }

    /// The names of this configuration.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] when a value cannot be used.
    pub fn new(config: &Config) -> Result<Self, RegistryError> {
        Ok(Self {
            name: config.url(),
            template: config.validate()?,
            config: config.clone(),
        })
    }
}

impl Registry for Dns {
    fn name(&self) -> &str {
        &self.name
    }

    /// Equal queries with equal configurations share one watch. DNS does not tell the health of an
    /// instance, so [`Query::passing_only`] leaves out nothing: a DNS server that checks health, such as
    /// Consul's, lists passing instances only.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for tags or a datacenter that the name has no placeholder for, and
    /// for a service that cannot be part of a name. [`RegistryError::NoRuntime`] outside a tokio runtime.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        let name = self.template.name(query);
        let name =
            name.map_err(|reason| RegistryError::invalid_setting(self.name.clone(), reason))?;
        let config = &self.config;
        let key = shared::watch_key(config, &[], query);
        shared::join_or_start(key, &query.service, || {
            let resolver = Resolver::new(Lookup {
                registry: self.name.clone(),
                service: query.service.clone(),
                name,
                records: config.records,
                servers: Servers::of(&config.resolvers),
                timeout: config.timeout,
            });
            let bounds = (config.min_refresh, config.max_refresh);
            WatchDriver::start(&self.name, &query.service, DnsSource::new(resolver, bounds))
        })
    }

    /// DNS has no registrations.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unsupported`].
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(RegistryError::Unsupported {
            registry: self.name.clone(),
            action: format!(
                "register {}: DNS only lists instances; register in the registry behind it, for example \
                 consul://, or add a record to its zone and do without a registration",
                registration.instance.id
            ),
        })
    }
}
