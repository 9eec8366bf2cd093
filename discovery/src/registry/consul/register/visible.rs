//! Finds out that consumers do not see the instance: that the catalog of Consul's servers lacks it, though
//! the agent holds it.
//!
//! The catalog loses the instances of an agent that was not reachable for a while. The agent brings them
//! back with its next full synchronization, a minute or more later; registering again does it at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reqwest::Method;
use serde::{Deserialize, de::IgnoredAny};
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::{
    error::chain,
    instance::Instance,
    registry::{
        RegistryError,
        consul::client::{Client, Request},
        http::segment,
    },
};

/// Time between two looks at an instance that is visible, or that could not be looked for.
const INTERVAL: Duration = Duration::from_secs(5);
/// Time between two looks at one that is not visible.
const MISSING_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which the catalog may lack the instance. The agent synchronizes a change within
/// milliseconds, unless the servers have no leader, which is an error here.
const GRACE: Duration = Duration::from_secs(2);
/// Time between two looks where the token may not read nodes.
const HIDDEN_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Visible {
    client: Arc<Client>,
    id: String,
    service: String,
    action: String,
}

/// The result of a search of the catalog.
enum Found {
    /// It is on the node of this name.
    On(String),
    Nowhere,
    /// The token does not let this be known.
    Hidden,
}

impl Visible {
    pub(super) fn new(client: Arc<Client>, instance: &Instance) -> Self {
        Self {
            client,
            action: format!("look for {} in the catalog", instance.id),
            id: instance.id.clone(),
            service: instance.service.clone(),
        }
    }

    /// Ends when the catalog lacks the instance.
    pub(super) async fn until_lost(&self) -> RegistryError {
        let mut node = None;
        let mut missing_since = None;
        // The agent synchronizes the registration first.
        sleep(MISSING_INTERVAL).await;
        loop {
            let wait = match self.look(&mut node).await {
                Ok(Found::On(_)) => {
                    missing_since = None;
                    INTERVAL
                }
                Ok(Found::Hidden) => HIDDEN_INTERVAL,
                Ok(Found::Nowhere) => {
                    let since = *missing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= GRACE {
                        return RegistryError::Invisible {
                            registry: self.client.name().to_owned(),
                            id: self.id.clone(),
                        };
                    }
                    MISSING_INTERVAL
                }
                Err(error) => {
                    debug!("{}", chain(&error));
                    missing_since = None;
                    INTERVAL
                }
            };
            // All instances of a host look at different times.
            sleep(wait.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
    }

    /// Looks on the node where the instance was last, which is cheap, and then everywhere.
    async fn look(&self, node: &mut Option<String>) -> Result<Found, RegistryError> {
        if let Some(name) = node
            && self.is_on(name).await?
        {
            return Ok(Found::On(name.clone()));
        }
        let found = self.find().await?;
        *node = match &found {
            Found::On(name) => Some(name.clone()),
            Found::Nowhere | Found::Hidden => None,
        };
        Ok(found)
    }

    async fn is_on(&self, node: &str) -> Result<bool, RegistryError> {
        let path = format!("/v1/catalog/node/{}", segment(node));
        let filter = filter("ID", &self.id);
        let services: Option<NodeServices> = self.get(path, filter.as_deref()).await?;
        let services = services.and_then(|node| node.services);
        let service = services.and_then(|mut services| services.remove(&self.id));
        Ok(service.is_some_and(|service| service.name == self.service))
    }

    async fn find(&self) -> Result<Found, RegistryError> {
        let path = format!("/v1/catalog/service/{}", segment(&self.service));
        let filter = filter("ServiceID", &self.id);
        let entries: Vec<Entry> = self.get(path, filter.as_deref()).await?;
        let entry = entries.into_iter().find(|entry| entry.id == self.id);
        if let Some(entry) = entry {
            return Ok(Found::On(entry.node));
        }
        // Consul leaves out the instances of nodes that the token may not read.
        let nodes: Vec<IgnoredAny> = self.get("/v1/catalog/nodes".to_owned(), None).await?;
        Ok(if nodes.is_empty() {
            Found::Hidden
        } else {
            Found::Nowhere
        })
    }

    async fn get<T: for<'de> Deserialize<'de>>(
        &self,
        path: String,
        filter: Option<&str>,
    ) -> Result<T, RegistryError> {
        let mut request = Request::new(Method::GET, path, &self.action);
        request.query.extend(filter.map(|text| ("filter", text)));
        let answer = self.client.call_ok(request).await?;
        if answer.header("x-consul-knownleader") == Some("false") {
            let reason = "the agent knows no leader, so the answer may be old".to_owned();
            return Err(self.client.malformed(&self.action, reason));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|e| self.client.malformed(&self.action, e.to_string()))
    }
}

/// The expression for one ID in this field, so that Consul does not send all instances of a service or of
/// a node: there may be thousands, and each of them looks. `None` for an ID that Consul's expressions
/// cannot quote.
fn filter(field: &str, id: &str) -> Option<String> {
    let quote = ['"', '`'].into_iter().find(|quote| !id.contains(*quote))?;
    // Only text in backticks has no escape sequences.
    let quote = if id.contains('\\') { '`' } else { quote };
    (!id.contains(quote)).then(|| format!("{field} == {quote}{id}{quote}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeServices {
    /// By ID.
    services: Option<BTreeMap<String, NodeService>>,
}

#[derive(Deserialize)]
struct NodeService {
    #[serde(rename = "Service", default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: String,
    #[serde(rename = "ServiceID")]
    id: String,
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn an_id_is_quoted_or_not_filtered_for() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(filter("ID", "a b"), some("ID == \"a b\""));
        assert_eq!(filter("ID", "\"a\""), some("ID == `\"a\"`"));
        assert_eq!(filter("ID", "a\\b"), some("ID == `a\\b`"));
        assert_eq!(filter("ID", "\"`"), None);
        assert_eq!(filter("ID", "\\`"), None);
    }
}
