//! The service that a subcommand is about: its registry, its name, the filters on its instances, and the
//! first answer of the registry.

mod connection;

use std::{sync::Arc, time::Duration};

use bootstrap::{registry::url_parser, values};
use clap::Args;
use discovery::{
    Channel, ChannelBuilder,
    registry::{InstanceSet, Query, Registry, RegistryError, connect},
};
use tokio::time::timeout;

pub(crate) use self::connection::ConnectionArgs;

/// A service in a registry.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// The registry: consul://HOST:PORT, etcd://..., zookeeper://..., eureka://..., dns://...,
    /// embedded://[FOLDER] or static://HOST:PORT,..., as for the services' --registry
    #[arg(value_parser = url_parser())]
    pub(crate) url: String,
    /// The service's name in the registry
    #[arg(value_parser = values::name)]
    pub(crate) service: String,
}

/// The filters on instances.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Filters {
    /// Only instances with this tag; repeatable, and an instance must have all of them
    #[arg(long = "tag", value_name = "TAG", value_parser = values::name)]
    pub(crate) tags: Vec<String>,
    /// Only instances in this datacenter; for Consul several, separated by commas
    #[arg(long, value_name = "NAME", env = "DISCOVERY_DATACENTER", value_parser = values::name)]
    pub(crate) datacenter: Option<String>,
}

impl Target {
    /// Opens the registry. Sends nothing.
    pub(crate) fn open(&self) -> Result<Arc<dyn Registry>, RegistryError> {
        connect(&self.url)
    }
}

impl Filters {
    /// The query for a service's instances with these filters.
    pub(crate) fn query(&self, target: &Target, passing: bool) -> Query {
        let query = Query::new(&target.service)
            .with_tags(&self.tags)
            .with_passing_only(passing);
        match &self.datacenter {
            Some(name) => query.with_datacenter(name),
            None => query,
        }
    }

    /// A channel to a service's instances with these filters.
    pub(crate) fn channel(&self, registry: Arc<dyn Registry>, target: &Target) -> ChannelBuilder {
        let builder = Channel::from_registry(registry, &target.service).tags(&self.tags);
        match &self.datacenter {
            Some(name) => builder.datacenter(name),
            None => builder,
        }
    }
}

/// The registry has not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error(transparent)]
    Failed(Arc<RegistryError>),
    #[error("{registry} has not answered within {limit:?}")]
    Late { registry: String, limit: Duration },
}

/// The first answer of the registry, or its first error.
pub(crate) async fn first_answer(
    registry: &dyn Registry,
    query: &Query,
    limit: Duration,
) -> Result<InstanceSet, NoAnswer> {
    let failed = |error| NoAnswer::Failed(Arc::new(error));
    let instancer = registry.instancer(query).map_err(failed)?;
    let mut sets = instancer.watch();
    let answer = sets.wait_for(|set| set.confirmed.is_some() || set.error.is_some());
    let late = || NoAnswer::Late {
        registry: registry.name().to_owned(),
        limit,
    };
    let set = match timeout(limit, answer).await {
        Ok(Ok(set)) => set.clone(),
        // The watch lives as long as the instancer.
        Ok(Err(_ended)) => return Err(late()),
        Err(_elapsed) => return Err(late()),
    };
    match &set.error {
        Some(error) if set.confirmed.is_none() => Err(NoAnswer::Failed(Arc::clone(error))),
        _ => Ok(set),
    }
}
