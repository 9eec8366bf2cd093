//! The watch of one service: a range read, then the events from its revision on.
//!
//! ```text
//!   start --> read the range --> watch from its revision ---.
//!                  ^                    |    ^              |
//!                  | compacted, or the  |    '- events: set-'
//!                  '-- revision went ---'       quiet: confirmed
//!                      back
//! ```
//!
//! After an error the driver waits and the watch starts anew: nothing that was known before is relied
//! on, because the server may have been replaced by an empty one.

mod entries;
mod events;

use std::sync::Arc;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use self::entries::Entries;
pub(super) use self::events::{Events, Keys, News};
use super::{
    client::Client,
    layout::service_prefix,
    proto::{RANGE, RangeRequest, RangeResponse, prefix_end},
};
use crate::{
    future::BoxFuture,
    registry::{Query, RegistryError, Source, Update, token_bucket::TokenBucket},
};

/// The sets of one service.
pub(super) struct EtcdSource {
    client: Arc<Client>,
    action: String,
    keys: Keys,
    entries: Entries,
    /// The open watch. `None`: the next call reads the range.
    events: Option<Events>,
    /// Limits the rate of sets while instances keep changing.
    sets: TokenBucket,
}

impl EtcdSource {
    pub(super) fn new(client: Arc<Client>, query: Query) -> Self {
        let config = client.config();
        let prefix = service_prefix(config.key_prefix(), &query.service);
        Self {
            action: format!("watch {}", query.service),
            keys: Keys {
                end: prefix_end(prefix.as_bytes()),
                first: prefix.clone().into_bytes(),
            },
            sets: TokenBucket::new(config.change_interval),
            entries: Entries::new(query, &prefix),
            events: None,
            client,
        }
    }

    async fn update(&mut self) -> Result<Update, RegistryError> {
        let Some(mut events) = self.events.take() else {
            return self.read().await;
        };
        let first = match events.next(&self.client, &self.action).await? {
            News::Changes(changes) => changes,
            News::Quiet => {
                self.events = Some(events);
                return Ok(Update::Unchanged);
            }
            News::Lost(reason) => return self.read_again(&reason).await,
        };
        self.entries.apply(first);
        // Changes that follow at once are part of the same set.
        let now = Instant::now();
        let until = now + self.sets.take(now);
        while let Ok(news) = timeout_at(until, events.next(&self.client, &self.action)).await {
            match news? {
                News::Changes(changes) => self.entries.apply(changes),
                News::Quiet => {}
                News::Lost(reason) => return self.read_again(&reason).await,
            }
        }
        self.events = Some(events);
        Ok(self.entries.listing().into())
    }

    async fn read_again(&mut self, reason: &str) -> Result<Update, RegistryError> {
        sleep(self.sets.take(Instant::now())).await;
        debug!(
            registry = self.client.name(),
            "{}: reading again: {reason}", self.action
        );
        self.read().await
    }

    async fn read(&mut self) -> Result<Update, RegistryError> {
        let request = RangeRequest {
            key: self.keys.first.clone(),
            range_end: self.keys.end.clone(),
        };
        let answer: RangeResponse = self.client.call(&self.action, RANGE, &request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        self.entries.replace(answer.kvs);
        let events = Events::open(&self.client, &self.action, &self.keys, revision).await?;
        self.events = Some(events);
        Ok(self.entries.listing().into())
    }
}

impl Source for EtcdSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
        Box::pin(self.update())
    }
}

#[cfg(test)]
mod tests;
