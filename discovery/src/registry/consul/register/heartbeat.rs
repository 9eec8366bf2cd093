//! Heartbeats of a TTL check.

use std::{future, sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::check::check_id;
use crate::registry::{
    Check, RegistryError,
    consul::client::{Client, Request},
    http::segment,
};

/// The number of heartbeats in the time after which the check turns critical without one.
pub(super) const BEATS: u32 = 3;

pub(super) struct Heartbeat {
    client: Arc<Client>,
    id: String,
    path: String,
    action: String,
    /// The time between two heartbeats.
    every: Duration,
}

impl Heartbeat {
    /// `None` for a check without heartbeats.
    pub(super) fn new(client: &Arc<Client>, id: &str, check: &Check) -> Option<Self> {
        let Check::Ttl { ttl } = check else {
            return None;
        };
        Some(Self {
            client: Arc::clone(client),
            id: id.to_owned(),
            path: format!("/v1/agent/check/pass/{}", segment(&check_id(id))),
            action: format!("send a heartbeat of {id}"),
            every: *ttl / BEATS,
        })
    }

    /// Sends one heartbeat.
    pub(super) async fn send(&self) -> Result<(), RegistryError> {
        self.send_within(self.every).await
    }

    async fn send_within(&self, limit: Duration) -> Result<(), RegistryError> {
        let mut request = Request::new(Method::PUT, self.path.clone(), &self.action);
        request.held = Some(limit);
        let answer = self.client.call(request).await?;
        if answer.status.is_success() {
            Ok(())
        } else if answer.status == StatusCode::NOT_FOUND
            || answer.contains("does not have associated TTL")
        {
            Err(self.client.forgotten(&self.id))
        } else {
            Err(self.client.refused(&self.action, &answer))
        }
    }

    /// Sends heartbeats until one fails twice.
    async fn run(&self) -> RegistryError {
        let mut ticks = interval_at(Instant::now() + self.every, self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A stalled connection is given up with its request. The second request has another.
            let mut beat = self.send_within(self.every / 2).await;
            if matches!(beat, Err(RegistryError::Unreachable { .. })) {
                beat = self.send_within(self.every / 2).await;
            }
            if let Err(error) = beat {
                return error;
            }
        }
    }
}

/// Sends heartbeats until one fails. Never ends for a check without heartbeats.
pub(super) async fn run(heartbeat: Option<&Heartbeat>) -> RegistryError {
    match heartbeat {
        Some(heartbeat) => heartbeat.run().await,
        None => future::pending().await,
    }
}
