//! The events of a key or a range of keys, and the signs of life of the server that sends them.

use tokio::time::{Instant, timeout_at};

use crate::registry::{
    RegistryError,
    etcd::{
        client::{Client, Stream},
        proto::{
            Event, WATCH, WatchCommand, WatchCreateRequest, WatchProgressRequest, WatchRequest,
            WatchResponse,
        },
    },
};

/// The keys to watch.
#[derive(Clone, Debug)]
pub(in super::super) struct Keys {
    pub(in super::super) first: Vec<u8>,
    /// The first key after the range. Empty: the one key.
    pub(in super::super) end: Vec<u8>,
}

/// An open watch.
pub(in super::super) struct Events {
    stream: Stream<WatchRequest, WatchResponse>,
    /// The last revision whose events have been received.
    revision: i64,
    /// The time of the last answer.
    heard: Instant,
    /// True after a request for progress that has no answer yet.
    asked: bool,
}

/// One answer of a watch.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum News {
    /// Changes, in the order in which they were made.
    Changes(Vec<Event>),
    /// Nothing has changed up to now.
    Quiet,
    /// The watch has ended without saying what changed: the keys must be read again. The events that
    /// follow the known revision are no longer kept, or the revision went back because the store was
    /// made anew.
    Lost(String),
}

impl Events {
    /// Watches `keys` for changes from `revision` on, at which they were read. The changes of that
    /// revision itself come once more: etcd 3.6 answers no requests for progress on a watch whose first
    /// revision does not exist yet.
    pub(in super::super) async fn open(
        client: &Client,
        action: &str,
        keys: &Keys,
        revision: i64,
    ) -> Result<Self, RegistryError> {
        let create = WatchCommand::Create(WatchCreateRequest {
            key: keys.first.clone(),
            range_end: keys.end.clone(),
            start_revision: revision,
        });
        let limit = client.config().request_timeout;
        let stream = client.stream(action, WATCH, &create.into(), limit).await?;
        Ok(Self {
            stream,
            revision,
            heard: Instant::now(),
            asked: false,
        })
    }

    /// The next answer. Asks the server for one if it has been silent for the interval of the
    /// configuration, and fails if it stays silent. Cancel safe.
    pub(in super::super) async fn next(
        &mut self,
        client: &Client,
        action: &str,
    ) -> Result<News, RegistryError> {
        let interval = client.config().confirm_interval;
        let limit = client.config().request_timeout;
        loop {
            let wait = if self.asked {
                interval + limit
            } else {
                interval
            };
            match timeout_at(self.heard + wait, self.stream.next()).await {
                Ok(Ok(answer)) => {
                    self.heard = Instant::now();
                    self.asked = false;
                    return self.read(client, action, answer);
                }
                Ok(Err(status)) => return Err(client.failed(action, &self.stream, &status)),
                Err(_) if self.asked => {
                    return Err(client.silent(action, &self.stream, limit));
                }
                Err(_) => {
                    self.asked = true;
                    let progress = WatchCommand::Progress(WatchProgressRequest {});
                    self.stream.send(progress.into());
                }
            }
        }
    }

    fn read(
        &mut self,
        client: &Client,
        action: &str,
        answer: WatchResponse,
    ) -> Result<News, RegistryError> {
        if answer.canceled {
            return if answer.compact_revision > 0 {
                let kept = answer.compact_revision;
                Ok(News::Lost(format!(
                    "the events before revision {kept} were compacted"
                )))
            } else {
                Err(client.canceled(action, answer.cancel_reason))
            };
        }
        let revision = answer
            .header
            .map_or(self.revision, |header| header.revision);
        if revision < self.revision {
            let known = self.revision;
            return Ok(News::Lost(format!(
                "the revision went back from {known} to {revision}"
            )));
        }
        // `created` has the store's present revision, whose events are still to come.
        if !answer.created {
            self.revision = revision;
        }
        Ok(if answer.events.is_empty() {
            News::Quiet
        } else {
            News::Changes(answer.events)
        })
    }
}
