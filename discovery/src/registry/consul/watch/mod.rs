//! The watch of one service.
//!
//! `state` is the state machine of a watch by blocking queries (the picture is in the documentation of the
//! `consul` module), and `query` asks Consul. `prepared` executes a prepared query instead. `datacenters`
//! joins the watches of several datacenters.

mod datacenters;
mod prepared;
mod query;
mod state;

use std::sync::Arc;

pub(super) use self::datacenters::Datacenters;
use self::{prepared::PreparedSource, query::HealthQuery, state::HealthSource};
use super::{client::Client, config::Config};
use crate::registry::{Query, RegistryError, WatchDriver};

/// Starts a watch of one datacenter.
pub(super) fn start(
    client: &Arc<Client>,
    query: Query,
    config: &Config,
) -> Result<WatchDriver, RegistryError> {
    let service = query.service.clone();
    let action = match &query.datacenter {
        Some(datacenter) => format!("watch {service} in {datacenter}"),
        None => format!("watch {service}"),
    };
    let client = Arc::clone(client);
    let name = config.name();
    if config.prepared {
        let source = PreparedSource::new(client, query, action);
        return WatchDriver::start(&name, &service, source);
    }
    let query = HealthQuery::new(client, query, config, action);
    let source = HealthSource::new(query, config.change_interval);
    WatchDriver::start(&name, &service, source)
}
