//! The watch of one service: its list is requested again and again.
//!
//! Eureka cannot hold a request back. Its own clients fetch all applications, or the changes of the last
//! minutes with a hash code over all applications. The list of one application needs neither.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    client::{Client, Request},
    entry::{self, Lookup},
};
use crate::{
    future::BoxFuture,
    registry::{
        Listing, Query, RegistryError, Source, Update,
        http::{Answer, segment},
    },
};

/// A body up to this size is decoded on the async thread, in well under a millisecond.
const SMALL_BODY: usize = 64 << 10;

pub(super) struct PollSource {
    client: Arc<Client>,
    query: Query,
    lookup: Lookup,
    path: String,
    action: String,
    /// True after a good answer: the next request waits for the interval.
    waits: bool,
}

impl PollSource {
    pub(super) fn new(client: Arc<Client>, query: Query) -> Self {
        let lookup = if client.config().vip {
            Lookup::Vip
        } else {
            Lookup::Application
        };
        let path = match lookup {
            Lookup::Vip => format!("/vips/{}", segment(&query.service)),
            Lookup::Application => {
                format!("/apps/{}", segment(&entry::application(&query.service)))
            }
        };
        Self {
            action: format!("watch {}", query.service),
            client,
            query,
            lookup,
            path,
            waits: false,
        }
    }

    async fn update(&mut self) -> Result<Update, RegistryError> {
        if self.waits {
            sleep(jittered(self.client.config().interval)).await;
        }
        self.waits = false;
        let request = Request::new(Method::GET, self.path.clone(), &self.action);
        let listing = self
            .client
            .call(&request, |answer| self.read(answer))
            .await?;
        self.waits = true;
        Ok(listing.into())
    }

    /// The selected instances in an answer. Fails with the reason.
    async fn read(&self, answer: Answer) -> Result<Listing, String> {
        if answer.status == StatusCode::NOT_FOUND {
            // An application without instances is not known.
            return Ok(Listing::default());
        }
        let (lookup, query) = (self.lookup, self.query.clone());
        let is_small = answer.body.len() <= SMALL_BODY;
        let decode = move || entry::decode(&answer.body, lookup, &query);
        if is_small {
            return decode();
        }
        // Megabytes take milliseconds, which would block the other tasks of this thread.
        let decoded = spawn_blocking(decode).await;
        decoded.map_err(|error| error.to_string())?
    }
}

/// Many clients that were started together do not ask together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

impl Source for PollSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
        Box::pin(self.update())
    }
}
