//! etcd as a registry.

use std::{fmt::Debug, sync::Arc};

use super::{
    client::Client, config::Config, layout::check_service, register::EtcdRegistration,
    services::services, watch::EtcdSource,
};
use crate::{
    future::BoxFuture,
    registry::{
        Instancer, Query, Registration, RegistrationClient, Registry, RegistryError, WatchDriver,
        shared,
    },
};

/// An etcd cluster.
///
/// It sends nothing before a watch or a registration starts. Clones share their connection.
#[derive(Clone, Debug)]
pub struct Etcd {
    client: Arc<Client>,
}

impl Etcd {
    /// The etcd at `etcd://[USER[:PASSWORD]@]HOST[:PORT],.../PREFIX?layout=gokit|grpc`, or at `etcds://`
    /// for TLS. The other settings come from etcdctl's environment variables, see
    /// [`Config::from_url`].
    ///
    /// # Errors
    ///
    /// When the URL is malformed, or as [`Etcd::new`].
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        Self::new(&Config::from_url(url, |name| std::env::var_os(name))?)
    }

    /// The etcd of this configuration. Reads the certificate files, as every connection does again.
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

    /// A key that differs wherever the answers to the query may differ.
    fn watch_key(&self, query: &Query) -> String {
        let config = self.client.config();
        let others: [&dyn Debug; 7] = [
            &config.password,
            &config.token,
            &config.connect_timeout,
            &config.request_timeout,
            &config.confirm_interval,
            &config.change_interval,
            &config.message_limit,
        ];
        shared::watch_key(config, &others, query)
    }
}

impl Registry for Etcd {
    fn name(&self) -> &str {
        self.client.name()
    }

    /// Equal queries to equally configured clusters share one watch.
    ///
    /// An entry counts as passing while its lease lives, so
    /// [`Query::passing_only`](crate::registry::Query::passing_only) leaves out nothing.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for a service name that cannot be part of a key, or a filter
    /// by something that the layout's entries do not have. [`RegistryError::NoRuntime`] outside a
    /// tokio runtime.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        check_service(&query.service).map_err(|reason| self.invalid(reason))?;
        let (tags, datacenter) = (!query.tags.is_empty(), query.datacenter.is_some());
        self.client
            .config()
            .layout
            .check_filters(tags, datacenter)
            .and_then(|()| query.check_datacenter())
            .map_err(|reason| self.invalid(reason))?;
        shared::join_or_start(self.watch_key(query), &query.service, || {
            let source = EtcdSource::new(Arc::clone(&self.client), query.clone());
            WatchDriver::start(self.name(), &query.service, source)
        })
    }

    /// The entry has a lease of 10 s with [`Check::Default`](crate::registry::Check::Default), of the
    /// given time with [`Check::ttl`](crate::registry::Check::ttl), and none with
    /// [`Check::None`](crate::registry::Check::None): it then stays after a crash.
    /// [`Registration::deregister_critical_after`] has no effect: the end of the lease removes the
    /// entry.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for a gRPC check, which etcd lacks, or for an instance that
    /// the layout cannot hold.
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        let client = Arc::clone(&self.client);
        Ok(Arc::new(EtcdRegistration::new(client, &registration)?))
    }
    fn services(&self) -> BoxFuture<'_, Result<Vec<String>, RegistryError>> {
        Box::pin(services(&self.client))
    }
}
