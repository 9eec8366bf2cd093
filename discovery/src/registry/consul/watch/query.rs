//! The query about a service's health, and the checks that an answer is one.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use tracing::debug;

use crate::registry::{
    Query, RegistryError,
    consul::{
        client::{Client, Request},
        config::Config,
        health::{self, Decoded},
    },
    http::{Answer, segment},
};

/// A body up to this size is decoded on the async thread, in well under a millisecond.
const SMALL_BODY: usize = 64 << 10;

/// A blocking query about one service.
pub(super) struct HealthQuery {
    client: Arc<Client>,
    query: Query,
    /// An expression that Consul evaluates.
    filter: Option<String>,
    /// The time that Consul may hold the query back.
    wait: Duration,
    action: String,
}

/// A good answer.
pub(super) struct HealthAnswer {
    /// At least 1.
    pub(super) index: u64,
    pub(super) decoded: Decoded,
}

impl HealthQuery {
    pub(super) fn new(client: Arc<Client>, query: Query, config: &Config, action: String) -> Self {
        Self {
            client,
            query,
            filter: config.filter.clone(),
            wait: config.wait,
            action,
        }
    }

    pub(super) fn service(&self) -> &str {
        &self.query.service
    }

    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// Sends the query. With an index, Consul holds it back until there is a newer one.
    pub(super) async fn ask(&self, index: Option<u64>) -> Result<HealthAnswer, RegistryError> {
        let answer = self.request(index).await?;
        Ok(HealthAnswer {
            index: self.index(&answer)?,
            decoded: decode(&self.client, &self.action, &self.query, answer.body).await?,
        })
    }

    async fn request(&self, index: Option<u64>) -> Result<Answer, RegistryError> {
        let path = format!("/v1/health/service/{}", segment(&self.query.service));
        let mut request = Request::new(Method::GET, path, &self.action);
        // Old versions of Consul filter by the first tag only. `health` filters by all of them.
        for tag in &self.query.tags {
            request.query.push(("tag", tag));
        }
        if let Some(datacenter) = &self.query.datacenter {
            request.query.push(("dc", datacenter));
        }
        if let Some(filter) = &self.filter {
            request.query.push(("filter", filter));
        }
        let (number, wait);
        if let Some(index) = index {
            number = index.to_string();
            wait = format!("{}ms", self.wait.as_millis());
            request
                .query
                .extend([("index", &*number), ("wait", &*wait)]);
            // Consul adds up to a sixteenth of the wait as jitter.
            request.held = Some(self.wait + self.wait / 16 + Duration::from_secs(5));
        }
        self.client.call_ok(request).await
    }

    /// The answer's index, at least 1: Consul does not hold a query with index 0 back.
    fn index(&self, answer: &Answer) -> Result<u64, RegistryError> {
        check_leader(&self.client, &self.action, answer)?;
        let index = answer.header("x-consul-index");
        let index = index.and_then(|text| text.parse::<u64>().ok());
        index.map(|index| index.max(1)).ok_or_else(|| {
            let reason = "no X-Consul-Index; check that the address is Consul's own".to_owned();
            self.client.malformed(&self.action, reason)
        })
    }

    /// Checks that an empty list is not a denial: Consul hides instances whose service or node the
    /// token may not read. Fails if one of the two rights is missing.
    pub(super) async fn verify_empty(&self) -> Result<(), RegistryError> {
        // 404 for a service that this agent does not run, 403 for one that may not be read.
        let path = format!(
            "/v1/agent/health/service/name/{}",
            segment(&self.query.service)
        );
        let answer = self
            .client
            .call(Request::new(Method::GET, path, &self.action))
            .await?;
        if !answer.status.is_success() {
            debug!(status = %answer.status, "the agent does not run the service");
        }
        // The agent itself is a node, so an empty list means that no node may be read.
        let path = "/v1/catalog/nodes".to_owned();
        let mut request = Request::new(Method::GET, path, &self.action);
        if let Some(datacenter) = &self.query.datacenter {
            request.query.push(("dc", datacenter));
        }
        let answer = self.client.call(request).await?;
        if answer.status == StatusCode::OK && answer.body.trim_ascii() == b"[]" {
            let reason = "the token may not read nodes, so Consul shows no instances";
            return Err(self.client.denied(&self.action, reason.to_owned()));
        }
        Ok(())
    }
}

/// Fails for an answer of an agent that is cut off from the servers.
pub(super) fn check_leader(
    client: &Client,
    action: &str,
    answer: &Answer,
) -> Result<(), RegistryError> {
    if answer.header("x-consul-knownleader") == Some("false") {
        let reason = "the agent knows no leader, so the answer may be old".to_owned();
        return Err(client.malformed(action, reason));
    }
    Ok(())
}

/// Decodes a list of service entries.
pub(super) async fn decode(
    client: &Client,
    action: &str,
    query: &Query,
    body: Vec<u8>,
) -> Result<Decoded, RegistryError> {
    let decoded = if body.len() <= SMALL_BODY {
        health::decode(&body, query)
    } else {
        // Megabytes take milliseconds, which would block the other tasks of this thread.
        let query = query.clone();
        tokio::task::spawn_blocking(move || health::decode(&body, &query))
            .await
            .map_err(|e| client.malformed(action, e.to_string()))?
    };
    decoded.map_err(|e| client.malformed(action, e.to_string()))
}
