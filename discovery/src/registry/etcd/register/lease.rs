//! The lease of a registration: the entry disappears when it is no longer kept alive.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use crate::registry::{
    RegistryError,
    etcd::{
        client::{Client, Stream},
        proto::{
            LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE, LeaseGrantRequest, LeaseGrantResponse,
            LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse,
        },
    },
};

/// The keep-alives in the time after which the lease expires without one. A lost one leaves time to
/// connect to another member.
const BEATS: u32 = 3;

/// The least time between two keep-alives, and for an answer to one.
const LEAST_BEAT: Duration = Duration::from_millis(500);

/// A lease, or the wish for one.
pub(super) struct Lease {
    client: Arc<Client>,
    /// The instance's ID.
    id: String,
    action: String,
    /// In seconds.
    wanted: i64,
    granted: Mutex<Option<Granted>>,
}

/// A lease that etcd has granted.
#[derive(Clone, Copy, Debug)]
struct Granted {
    id: i64,
    /// The time granted, which may be longer than the time asked for.
    ttl: Duration,
}

impl Granted {
    /// The time between two keep-alives, and for an answer to one.
    fn beat(self) -> Duration {
        (self.ttl / BEATS).max(LEAST_BEAT)
    }

    fn keep_alive(self) -> LeaseKeepAliveRequest {
        LeaseKeepAliveRequest { id: self.id }
    }
}

impl Lease {
    /// `wanted` in seconds.
    pub(super) fn new(client: Arc<Client>, id: &str, wanted: i64) -> Self {
        Self {
            client,
            id: id.to_owned(),
            action: format!("keep the lease of {id}"),
            wanted,
            granted: Mutex::default(),
        }
    }

    fn granted(&self) -> Option<Granted> {
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, granted: Option<Granted>) {
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner) = granted;
    }

    /// Drops a lease that the server does not know.
    pub(super) fn forget(&self) {
        self.set(None);
    }

    /// The ID of a lease that is alive: the one held, kept alive once, or a new one.
    pub(super) async fn ensure(&self) -> Result<i64, RegistryError> {
        if let Some(held) = self.granted() {
            let mut stream = self.open(held).await?;
            if self.is_alive(&mut stream, held).await? {
                return Ok(held.id);
            }
            self.forget();
        }
        let request = LeaseGrantRequest { ttl: self.wanted };
        let answer: LeaseGrantResponse = self
            .client
            .call(&self.action, LEASE_GRANT, &request)
            .await?;
        let seconds = u64::try_from(answer.ttl).unwrap_or(0).max(1);
        self.set(Some(Granted {
            id: answer.id,
            ttl: Duration::from_secs(seconds),
        }));
        Ok(answer.id)
    }

    /// Keeps the lease alive until it is lost or the server cannot be asked.
    pub(super) async fn keep(&self) -> RegistryError {
        let Some(held) = self.granted() else {
            return self.forgotten();
        };
        match self.keep_alive(held).await {
            Ok(()) => {
                self.forget();
                self.forgotten()
            }
            Err(error) => error,
        }
    }

    /// Ends when the server no longer knows the lease.
    async fn keep_alive(&self, held: Granted) -> Result<(), RegistryError> {
        let mut stream = self.open(held).await?;
        while self.is_alive(&mut stream, held).await? {
            // A stream that breaks meanwhile is not noticed only at the next keep-alive.
            match timeout(held.beat(), stream.next()).await {
                Err(_) => stream.send(held.keep_alive()),
                Ok(Ok(answer)) if answer.ttl > 0 => stream.send(held.keep_alive()),
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) => return Err(self.client.failed(&self.action, &stream, &status)),
            }
        }
        Ok(())
    }

    /// Opens a stream of keep-alives and sends the first.
    async fn open(
        &self,
        held: Granted,
    ) -> Result<Stream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>, RegistryError> {
        self.client
            .stream(
                &self.action,
                LEASE_KEEP_ALIVE,
                &held.keep_alive(),
                held.beat(),
            )
            .await
    }

    /// Reads the answer to a keep-alive. An answer without a TTL is about an unknown lease.
    async fn is_alive(
        &self,
        stream: &mut Stream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>,
        held: Granted,
    ) -> Result<bool, RegistryError> {
        match timeout(held.beat(), stream.next()).await {
            Ok(Ok(answer)) => Ok(answer.ttl > 0),
            Ok(Err(status)) => Err(self.client.failed(&self.action, stream, &status)),
            Err(_) => Err(self.client.silent(&self.action, stream, held.beat())),
        }
    }

    /// Ends the lease and with it the entry. A lease that is not known is not an error.
    pub(super) async fn revoke(&self) -> Result<(), RegistryError> {
        let Some(held) = self.granted() else {
            return Ok(());
        };
        let action = format!("deregister {}", self.id);
        let request = LeaseRevokeRequest { id: held.id };
        let answer = self
            .client
            .call::<_, LeaseRevokeResponse>(&action, LEASE_REVOKE, &request)
            .await;
        match answer {
            Err(error) if !super::is_not_found(&error) => Err(error),
            _ => {
                self.forget();
                Ok(())
            }
        }
    }

    fn forgotten(&self) -> RegistryError {
        RegistryError::Forgotten {
            registry: self.client.name().to_owned(),
            id: self.id.clone(),
        }
    }
}
