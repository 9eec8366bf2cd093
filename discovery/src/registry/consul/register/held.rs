//! Follows what the agent holds under the instance's ID.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::definition::Service;
use crate::registry::{
    RegistryError,
    consul::client::{Client, Request},
    http::segment,
    token_bucket::TokenBucket,
};

/// The time that Consul may hold the query back.
const HOLD: Duration = Duration::from_secs(30);

/// The least time between two queries, after a burst.
const INTERVAL: Duration = Duration::from_secs(1);

/// The service as it was registered.
pub(super) struct Held {
    client: Arc<Client>,
    id: String,
    path: String,
    action: String,
    wanted: Service,
}

impl Held {
    pub(super) fn new(client: Arc<Client>, id: &str, wanted: Service) -> Self {
        Self {
            client,
            path: format!("/v1/agent/service/{}", segment(id)),
            action: format!("watch the registration of {id}"),
            id: id.to_owned(),
            wanted,
        }
    }

    /// Ends when the agent does not hold the service as it was registered, or cannot be asked.
    pub(super) async fn until_lost(&self) -> RegistryError {
        let wait = format!("{}s", HOLD.as_secs());
        let mut requests = TokenBucket::new(INTERVAL);
        let mut hash = None::<String>;
        loop {
            sleep(requests.take(Instant::now())).await;
            let mut request = Request::new(Method::GET, self.path.clone(), &self.action);
            if let Some(hash) = &hash {
                request.query.extend([("hash", &**hash), ("wait", &*wait)]);
                request.held = Some(HOLD + HOLD / 16 + Duration::from_secs(5));
            }
            let answer = match self.client.call(request).await {
                Ok(answer) => answer,
                Err(error) => return error,
            };
            if answer.status == StatusCode::NOT_FOUND {
                return self.client.forgotten(&self.id);
            }
            if !answer.status.is_success() {
                return self.client.refused(&self.action, &answer);
            }
            let found: Service = match serde_json::from_slice(&answer.body) {
                Ok(found) => found,
                Err(error) => return self.client.malformed(&self.action, error.to_string()),
            };
            if found != self.wanted {
                return RegistryError::Overwritten {
                    registry: self.client.name().to_owned(),
                    id: self.id.clone(),
                    found: format!("{} at {}:{}", found.name, found.address, found.port),
                };
            }
            hash = answer.header("x-consul-contenthash").map(str::to_owned);
        }
    }
}
