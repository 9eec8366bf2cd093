//! The entry of a registration.
//!
//! Eureka keeps the entry with the latest `lastDirtyTimestamp` of those that are registered under one ID,
//! and answers the others as if it had taken them. So the entry is read after it was written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::lease::Lease;
use crate::{
    registry::{
        CheckState, Registration, RegistryError,
        eureka::{
            client::{Client, Request},
            entry::{self, DOWN, Entry, UP, Written},
        },
        http::{Answer, segment},
    },
    watch,
};

/// Attempts to write the entry. Each is dated after the entry that Eureka kept instead.
const ATTEMPTS: u32 = 3;

pub(super) struct OwnEntry {
    client: Arc<Client>,
    id: String,
    written: Written,
    /// The path of the application.
    application: String,
    /// The path of the entry.
    path: String,
    /// The `lastDirtyTimestamp` of the entry, in milliseconds since 1970.
    dirty: AtomicI64,
    state: watch::Sender<CheckState>,
}

/// The answer to a request for one entry.
#[derive(Deserialize)]
struct One {
    instance: Entry,
}

impl OwnEntry {
    /// Fails with the reason why Eureka cannot hold the instance.
    pub(super) fn new(
        client: Arc<Client>,
        registration: &Registration,
        lease: &Lease,
    ) -> Result<Self, String> {
        let instance = &registration.instance;
        let written = Written::new(instance, lease.beat(), lease.duration())?;
        let written = written.with_tls(registration.tls);
        let name = entry::application(&instance.service);
        let application = format!("/apps/{}", segment(&name));
        Ok(Self {
            client,
            id: instance.id.clone(),
            written,
            path: format!("{application}/{}", segment(&instance.id)),
            application,
            dirty: AtomicI64::new(0),
            state: watch::Sender::new(CheckState::Passing),
        })
    }

    pub(super) fn check_state(&self) -> watch::Receiver<CheckState> {
        self.state.subscribe()
    }

    /// Writes the entry, and makes sure that it is the one that Eureka keeps.
    pub(super) async fn register(&self) -> Result<(), RegistryError> {
        let action = format!("register {}", self.id);
        let mut kept = None;
        for _ in 0..ATTEMPTS {
            self.write(&action, UP, None).await?;
            kept = self.read(&action, None).await?;
            if kept.as_ref().is_none_or(|entry| self.written.is(entry)) {
                self.publish(kept.as_ref());
                // A lease lasts its whole time after a renewal only.
                return self.renew(None).await;
            }
            // The next one is dated after it. The clock of its owner is ahead.
            let later = kept.as_ref().and_then(Entry::last_dirty);
            self.dirty.fetch_max(later.unwrap_or_default(), Relaxed);
        }
        let found = kept.map_or_else(String::new, |entry| entry.describe());
        Err(self.overwritten(found))
    }

    /// Writes the entry again as it is, and renews its lease within `limit` per peer and request.
    pub(super) async fn repeat(&self, limit: Duration) -> Result<(), RegistryError> {
        let action = format!("repeat the registration of {}", self.id);
        self.write(&action, UP, Some(limit)).await?;
        self.renew(Some(limit)).await
    }

    async fn write(
        &self,
        action: &str,
        status: &str,
        limit: Option<Duration>,
    ) -> Result<(), RegistryError> {
        let mut request = Request::new(Method::POST, self.application.clone(), action);
        request.body = Some(self.written.body(status, self.next_dirty()));
        request.limit = limit;
        let taken = async |answer: Answer| match answer.status {
            StatusCode::NOT_FOUND => Err("status 404".to_owned()),
            _ => Ok(()),
        };
        self.client.call(&request, taken).await
    }

    /// The time of a change: now, or later than that of any entry known.
    fn next_dirty(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
        let next = |last: i64| last.saturating_add(1).max(now);
        let updated = self
            .dirty
            .fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        updated.map_or(now, next)
    }

    /// Renews the lease, within `limit` per peer if it is given.
    ///
    /// # Errors
    ///
    /// `Forgotten` if Eureka does not know the entry, or has an older one: a peer that lacks the last
    /// registration.
    pub(super) async fn renew(&self, limit: Option<Duration>) -> Result<(), RegistryError> {
        let action = format!("renew {}", self.id);
        let mut request = Request::new(Method::PUT, self.path.clone(), &action);
        // An operator's override counts more than this status.
        request.query = vec![
            ("status", UP.to_owned()),
            ("lastDirtyTimestamp", self.dirty.load(Relaxed).to_string()),
        ];
        request.limit = limit;
        let status = async |answer: Answer| Ok(answer.status);
        match self.client.call(&request, status).await? {
            StatusCode::NOT_FOUND => Err(self.forgotten()),
            _ => Ok(()),
        }
    }

    /// Reads the entry and publishes its status. Returns the error if it is another registration's.
    ///
    /// A missing entry is not an error here: the next renewal finds out about it.
    pub(super) async fn verify(
        &self,
        limit: Duration,
    ) -> Result<Option<RegistryError>, RegistryError> {
        let action = format!("read the registration of {}", self.id);
        let found = self.read(&action, Some(limit)).await?;
        if let Some(other) = found.as_ref().filter(|entry| !self.written.is(entry)) {
            return Ok(Some(self.overwritten(other.describe())));
        }
        self.publish(found.as_ref());
        Ok(None)
    }

    /// The entry that Eureka has under the ID.
    async fn read(
        &self,
        action: &str,
        limit: Option<Duration>,
    ) -> Result<Option<Entry>, RegistryError> {
        let mut request = Request::new(Method::GET, self.path.clone(), action);
        request.limit = limit;
        let read = async |answer: Answer| {
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let one = serde_json::from_slice::<One>(&answer.body);
            one.map(|one| Some(one.instance)).map_err(|e| e.to_string())
        };
        self.client.call(&request, read).await
    }

    fn publish(&self, found: Option<&Entry>) {
        let Some(entry) = found else {
            return;
        };
        let state = entry::check_state(entry);
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }

    /// Removes the entry. One that is not known is not an error.
    ///
    /// Its status is `DOWN` before, as Spring's clients write it. Should Eureka's response cache keep a list
    /// that was computed during the removal, no client calls the instance.
    pub(super) async fn deregister(&self) -> Result<(), RegistryError> {
        let action = format!("deregister {}", self.id);
        match self.write(&action, DOWN, None).await {
            // The entry is removed all the same.
            Ok(())
            | Err(RegistryError::Refused {
                transient: false, ..
            }) => {}
            Err(error) => return Err(error),
        }
        let request = Request::new(Method::DELETE, self.path.clone(), &action);
        self.client.call(&request, async |_| Ok(())).await
    }

    fn forgotten(&self) -> RegistryError {
        RegistryError::Forgotten {
            registry: self.client.name().to_owned(),
            id: self.id.clone(),
        }
    }

    fn overwritten(&self, found: String) -> RegistryError {
        RegistryError::Overwritten {
            registry: self.client.name().to_owned(),
            id: self.id.clone(),
            found,
        }
    }
}
