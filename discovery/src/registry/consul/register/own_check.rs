//! Reads the state of the instance's own check from the agent.
//!
//! The agent has no blocking query for it, and the catalog's covers the checks of all instances.

use std::{convert::Infallible, future, sync::Arc, time::Duration};

use reqwest::Method;
use serde::Deserialize;
use tokio::time::sleep;
use tracing::debug;

use super::{check::check_id, definition::null_is_default, heartbeat::BEATS};
use crate::{
    error::chain,
    registry::{
        Check, CheckState, RegistryError,
        consul::client::{Client, Request},
        http::{one_line, segment},
    },
    watch,
};

/// Bounds of the time between two reads. Consul does not check more often than every second.
const FASTEST: Duration = Duration::from_secs(1);
const SLOWEST: Duration = Duration::from_secs(15);

pub(super) struct OwnCheck {
    client: Arc<Client>,
    check_id: String,
    path: String,
    action: String,
    /// The time between two reads.
    every: Duration,
    /// True if Consul runs the check: it then has an output after its first run.
    has_output: bool,
    state: watch::Sender<CheckState>,
}

impl OwnCheck {
    /// `None` for an instance without a check.
    pub(super) fn new(client: &Arc<Client>, id: &str, check: &Check) -> Option<Self> {
        let every = match check {
            Check::Grpc(grpc) => grpc.interval,
            // Twice per heartbeat, so that one read sees a check that the next heartbeat lifts.
            Check::Ttl { ttl } => *ttl / (2 * BEATS),
            Check::None | Check::Default => return None,
        };
        Some(Self {
            client: Arc::clone(client),
            check_id: check_id(id),
            path: format!("/v1/agent/health/service/id/{}", segment(id)),
            action: format!("read the health check of {id}"),
            every: every.clamp(FASTEST, SLOWEST),
            has_output: matches!(check, Check::Grpc(_)),
            state: watch::Sender::new(CheckState::Passing),
        })
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<CheckState> {
        self.state.subscribe()
    }

    async fn follow(&self) -> Infallible {
        loop {
            match self.read().await {
                Ok(Some(state)) => {
                    self.state.send_if_modified(|current| {
                        let changed = *current != state;
                        *current = state;
                        changed
                    });
                }
                // The query on the service finds out that the registration is lost.
                Ok(None) => {}
                Err(error) => debug!("{}", chain(&error)),
            }
            sleep(self.every).await;
        }
    }

    /// The check's state, or `None` if the agent does not hold the check or has not run it yet: it is
    /// registered as passing, which says nothing.
    async fn read(&self) -> Result<Option<CheckState>, RegistryError> {
        let request = Request::new(Method::GET, self.path.clone(), &self.action);
        // The status is 429 or 503 if a check does not pass, with the same body.
        let answer = self.client.call(request).await?;
        let Ok(health) = serde_json::from_slice::<ServiceHealth>(&answer.body) else {
            return Ok(None);
        };
        let own = |check: &CheckResult| check.check_id == self.check_id;
        let result = health.checks.into_iter().find(own);
        let has_run = |result: &CheckResult| !self.has_output || !result.output.is_empty();
        Ok(result.filter(has_run).map(CheckResult::state))
    }
}

/// Keeps the state current. Never ends.
pub(super) async fn follow(check: Option<&OwnCheck>) -> Infallible {
    match check {
        Some(check) => check.follow().await,
        None => future::pending().await,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceHealth {
    #[serde(default, deserialize_with = "null_is_default")]
    checks: Vec<CheckResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CheckResult {
    #[serde(rename = "CheckID")]
    check_id: String,
    status: String,
    #[serde(default)]
    output: String,
}

impl CheckResult {
    fn state(self) -> CheckState {
        let output = one_line(&self.output);
        match self.status.as_str() {
            "passing" => CheckState::Passing,
            "warning" => CheckState::warning(output),
            _ => CheckState::critical(output),
        }
    }
}
