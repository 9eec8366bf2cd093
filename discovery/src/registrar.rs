//! Registers an instance, keeps it registered for as long as the process lives, deregisters it.
//!
//! ```text
//! registering --ok--> registered --forgotten, unreachable--> registering (at once, then backing off)
//!      `------------------ deregister() -------------------> deregistered
//! ```
//!
//! Go kit's `Registrar` calls its registry once and keeps the error to itself; this one answers for
//! the whole life and says where it stands in [`Registrar::state`].

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tracing::{debug, info, warn};

use crate::{
    backoff::Backoff,
    registry::{RegistrationClient, RegistryError},
};

/// Waits between attempts to register: quick enough that an instance is back within two seconds of
/// its registry, and spread so that a thousand of them do not come at once.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Where a registration stands.
#[derive(Clone, Debug)]
pub enum RegistrationState {
    /// Not in the registry yet, or no longer; the last failure, if there was one.
    Registering(Option<Arc<RegistryError>>),
    /// In the registry, as far as it has said.
    Registered,
}

/// A registration that is kept until [`deregister`](Self::deregister) is called.
///
/// Dropping it stops the upkeep and leaves the instance in the registry, to be dropped there by its
/// health check: the right thing for a process that dies, the wrong one for one that ends.
#[derive(Debug)]
pub struct Registrar {
    state: watch::Receiver<RegistrationState>,
    upkeep: JoinHandle<()>,
    stop: watch::Sender<bool>,
    client: ClientHandle,
}

#[derive(Clone)]
struct ClientHandle(Arc<dyn RegistrationClient>);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.0.id(), self.0.registry())
    }
}

impl Registrar {
    /// Starts to register in the background. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(client: Arc<dyn RegistrationClient>) -> Self {
        let (state_tx, state) = watch::channel(RegistrationState::Registering(None));
        let (stop, stop_rx) = watch::channel(false);
        let client = ClientHandle(client);
        let upkeep = tokio::spawn(keep(client.clone(), state_tx, stop_rx));
        Self {
            state,
            upkeep,
            stop,
            client,
        }
    }

    /// Where the registration stands, and every later change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.state.clone()
    }

    /// Ends the upkeep and takes the instance out of the registry, within `limit`.
    ///
    /// # Errors
    ///
    /// When the registry refused or did not answer in time; its health check is then what removes
    /// the instance.
    pub async fn deregister(mut self, limit: Duration) -> Result<(), RegistryError> {
        let client = self.client.clone();
        let action = format!("deregister {}", client.0.id());
        // A registration under way must not arrive after the deregistration: it is let finish,
        // which `limit` bounds as well.
        let work = async {
            self.stop.send_replace(true);
            // The upkeep task ends by itself and cannot fail.
            let _ended = (&mut self.upkeep).await;
            client.0.deregister().await
        };
        match timeout(limit, work).await {
            Ok(Ok(())) => {
                info!(
                    instance = client.0.id(),
                    registry = client.0.registry(),
                    "deregistered"
                );
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(elapsed) => Err(RegistryError::Unreachable {
                registry: client.0.registry().to_owned(),
                action,
                source: elapsed.into(),
            }),
        }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

async fn keep(
    ClientHandle(client): ClientHandle,
    state: watch::Sender<RegistrationState>,
    mut stop: watch::Receiver<bool>,
) {
    let mut failures: u32 = 0;
    let mut told = String::new();
    while !*stop.borrow() {
        let lost = match client.register().await {
            Ok(()) => {
                failures = 0;
                info!(
                    instance = client.id(),
                    registry = client.registry(),
                    "registered"
                );
                state.send_replace(RegistrationState::Registered);
                tokio::select! {
                    lost = client.maintain() => lost,
                    _ = stop.changed() => return,
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                error
            }
        };
        let wait = if failures == 0 {
            // Forgotten or cut off just now: it may be back already, but a registry that forgets
            // at once must not be asked in a tight loop.
            BACKOFF.first
        } else {
            BACKOFF.after(failures, &mut fastrand::Rng::new())
        };
        let reason = crate::error::chain(&lost);
        // An outage of hours must not fill the log: ever fewer of equal lines stand out.
        if failures < 2 || failures.is_power_of_two() || reason != told {
            warn!(instance = client.id(), failures, retry_in = ?wait, "not registered: {reason}");
        } else {
            debug!(instance = client.id(), failures, retry_in = ?wait, "not registered: {reason}");
        }
        told = reason;
        state.send_replace(RegistrationState::Registering(Some(Arc::new(lost))));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => return,
        }
    }
}
