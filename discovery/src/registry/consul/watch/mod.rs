//! The watch of one service by blocking queries.
//!
//! `state` is the state machine (the picture is in the documentation of the `consul` module), and
//! `query` asks Consul.

mod query;
mod state;

use std::sync::Arc;

use self::{query::HealthQuery, state::HealthSource};
use super::{client::Client, config::Config};
use crate::registry::{Query, RegistryError, WatchDriver};

/// Starts a watch.
pub(super) fn start(
    client: &Arc<Client>,
    query: Query,
    config: &Config,
) -> Result<WatchDriver, RegistryError> {
    let service = query.service.clone();
    let query = HealthQuery::new(Arc::clone(client), query, config.wait);
    let source = HealthSource::new(query, config.change_interval);
    WatchDriver::start(client.name(), &service, source)
}
