//! HTTP calls to the peers of a Eureka, in turn until one answers.

mod access;
mod peer;
mod request;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::runtime::Handle;
use tracing::debug;

pub(super) use self::request::Request;
use self::{access::Access, peer::Peer};
use super::config::Config;
use crate::{
    error::chain,
    registry::{RegistryError, http, http::Answer},
};

pub(super) struct Client {
    name: String,
    config: Arc<Config>,
    access: Access,
    peers: Vec<Peer>,
    /// The peer that is asked first: the last one that answered.
    preferred: AtomicUsize,
}

impl Client {
    pub(super) fn new(config: Arc<Config>) -> Result<Self, RegistryError> {
        let peers = config.servers.iter();
        Ok(Self {
            name: config.name(),
            access: Access::open(Arc::clone(&config))?,
            peers: peers.map(|server| Peer::new(server, &config)).collect(),
            preferred: AtomicUsize::new(0),
            config,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Sends the request to one peer after the other until one gives an answer that `read` takes: a
    /// success, or a 404 of Eureka. `read` fails with the reason.
    ///
    /// A peer that refuses the request as such ends the search: the others would refuse it as well.
    ///
    /// # Errors
    ///
    /// The first failure, if no peer gives such an answer; it names the peer. `NoRuntime` outside a tokio
    /// runtime.
    pub(super) async fn call<T, F>(
        &self,
        request: &Request<'_>,
        read: impl Fn(Answer) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, String>>,
    {
        if Handle::try_current().is_err() {
            return Err(RegistryError::NoRuntime {
                action: request.action.to_owned(),
            });
        }
        let http = self.access.http();
        let first = self.preferred.load(Relaxed);
        let mut failure = None;
        for nth in 0..self.peers.len() {
            let at = (first + nth) % self.peers.len();
            let peer = &self.peers[at];
            let answer = match peer.send(request, &http, &self.config).await {
                Ok(answer) => read(answer)
                    .await
                    .map_err(|reason| http::malformed(peer.name(), request.action, reason)),
                Err(error) => Err(error),
            };
            match answer {
                Ok(value) => {
                    self.preferred.store(at, Relaxed);
                    return Ok(value);
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    debug!("{}", chain(&error));
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            RegistryError::invalid_setting(self.name.clone(), "no server is given")
        }))
    }
}

/// True if another peer would give the same answer. A peer that has just started denies every request, as
/// one with other credentials does.
fn is_final(error: &RegistryError) -> bool {
    !error.is_transient() && !matches!(error, RegistryError::Denied { .. })
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
