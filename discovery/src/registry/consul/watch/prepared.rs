//! The watch of a prepared query, which Consul cannot hold back: it is executed again and again.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::query::{check_leader, decode};
use crate::{
    future::BoxFuture,
    registry::{
        Listing, Query, RegistryError, Source, Update,
        consul::{
            client::{Client, Request},
            health::Names,
        },
        http::segment,
    },
};

/// Time between two executions, before jitter of a tenth.
const INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct PreparedSource {
    client: Arc<Client>,
    query: Query,
    path: String,
    action: String,
    names: Names,
    /// True if the last execution succeeded, so that the next one waits.
    following: bool,
}

/// The result of an execution.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Executed<'a> {
    #[serde(borrow)]
    nodes: &'a RawValue,
}

impl PreparedSource {
    pub(super) fn new(client: Arc<Client>, query: Query, action: String) -> Self {
        Self {
            path: format!("/v1/query/{}/execute", segment(&query.service)),
            client,
            query,
            action,
            names: Names::default(),
            following: false,
        }
    }

    async fn execute(&mut self) -> Result<Listing, RegistryError> {
        if self.following {
            sleep(INTERVAL.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
        let mut request = Request::new(Method::GET, self.path.clone(), &self.action);
        if let Some(datacenter) = &self.query.datacenter {
            request.query.push(("dc", datacenter));
        }
        let answer = self.client.call_ok(request).await?;
        check_leader(&self.client, &self.action, &answer)?;
        let malformed = |e: serde_json::Error| self.client.malformed(&self.action, e.to_string());
        let executed: Executed<'_> = serde_json::from_slice(&answer.body).map_err(malformed)?;
        let nodes = executed.nodes.get();
        // Consul writes an empty list as null.
        let nodes = if nodes == "null" { "[]" } else { nodes };
        let body = nodes.as_bytes().to_vec();
        let decoded = decode(&self.client, &self.action, &self.query, body).await?;
        Ok(decoded.into_listing(&mut self.names))
    }
}

impl Source for PreparedSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
        Box::pin(async {
            let executed = self.execute().await;
            self.following = executed.is_ok();
            executed.map(Update::from)
        })
    }
}
