//! The watch of one service by blocking queries.
//!
//! `state` is the state machine (the picture is in the documentation of the `consul` module),
//! `query` asks Consul, and `last_good` publishes the answers.

mod last_good;
mod query;
mod state;

use std::sync::Arc;

use tokio::{sync::watch, task::JoinHandle};

use self::{last_good::LastGood, query::HealthQuery, state::Watch};
use super::{client::Client, config::Config};
use crate::registry::{InstanceSet, Instancer, Query};

/// A running watch. Dropping it ends the watch and its request.
pub(super) struct ConsulInstancer {
    sets: watch::Receiver<InstanceSet>,
    task: JoinHandle<()>,
}

impl ConsulInstancer {
    /// The caller must be inside a tokio runtime.
    pub(super) fn start(client: Arc<Client>, query: Query, config: &Config) -> Self {
        let (last_good, sets) = LastGood::new(client.name(), &query.service);
        let query = HealthQuery::new(client, query, config.wait);
        let watch = Watch::new(query, last_good, config.change_interval);
        Self {
            sets,
            task: tokio::spawn(watch.run()),
        }
    }
}

impl Instancer for ConsulInstancer {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.sets.clone()
    }
}

impl Drop for ConsulInstancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
