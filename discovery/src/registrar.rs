//! Registers an instance, keeps it registered while the process lives, and deregisters it.
//!
//! ```text
//! Registering --ok--> Registered --lost, unreachable--> Registering (at once, then with backoff)
//!      `----------------- deregister() ----------------> deregistered
//! ```

mod maintenance;
mod state;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, error::Elapsed, sleep, timeout, timeout_at},
};
use tracing::{debug, info};

use self::maintenance::{BACKOFF, Maintenance};
pub use self::state::RegistrationState;
use crate::{
    error::chain,
    registry::{RegistrationClient, RegistryError},
    watch,
};

/// One request of a deregistration may take this part of the time limit, so that a stalled
/// connection leaves time for another.
const REQUESTS_PER_LIMIT: u32 = 4;

/// A registration that is kept until [`deregister`](Self::deregister) is called.
///
/// It registers again when the registry forgets the instance, and retries with backoff while the
/// registry is unreachable. [`state`](Self::state) shows the result. A change of the registry's
/// health check of the instance is logged once, with the registry's own text.
///
/// Dropping it stops the maintenance and leaves the instance in the registry, whose health check
/// removes it later. A process that ends in order calls `deregister` instead.
///
/// ```no_run
/// use std::time::Duration;
///
/// use discovery::{
///     Instance, Registrar,
///     registry::{self, Check, Registration},
/// };
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let instance = Instance::named("trim_service", [10, 0, 0, 1].into(), 8975)?;
/// let client = registry::connect("consul://localhost:8500")?
///     .registration(Registration::new(instance, Check::grpc()))?;
/// let registrar = Registrar::start(client)?;
/// // ... serve until a signal arrives ...
/// registrar.deregister(Duration::from_secs(2)).await?;
/// # Ok(())
/// # }
/// ```
pub struct Registrar {
    state: watch::Receiver<RegistrationState>,
    maintenance: JoinHandle<()>,
    stop: watch::Sender<bool>,
    client: Arc<dyn RegistrationClient>,
}

impl Registrar {
    /// Starts the registration in the background.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NoRuntime`] outside a tokio runtime.
    pub fn start(client: Arc<dyn RegistrationClient>) -> Result<Self, RegistryError> {
        let runtime = runtime(|| format!("register {}", client.id()))?;
        let (state_tx, state) = watch::channel(RegistrationState::Registering(None));
        let (stop, stop_rx) = watch::channel(false);
        let maintenance = Maintenance::new(Arc::clone(&client), state_tx, stop_rx);
        Ok(Self {
            state,
            maintenance: runtime.spawn(maintenance.run()),
            stop,
            client,
        })
    }

    /// The current state of the registration and every later one.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.state.clone()
    }

    /// Stops the maintenance and deregisters the instance within `limit`. Retries while the
    /// registry is unreachable, stalls, or is overloaded.
    ///
    /// # Errors
    ///
    /// When the registry refuses or does not answer in time. The registry's health check then
    /// removes the instance. [`RegistryError::NoRuntime`] outside a tokio runtime.
    pub async fn deregister(mut self, limit: Duration) -> Result<(), RegistryError> {
        runtime(|| format!("deregister {}", self.client.id()))?;
        let by = Instant::now() + limit;
        self.stop.send_replace(true);
        // A registration under way must not arrive after the deregistration, so it may finish.
        let part = limit / REQUESTS_PER_LIMIT;
        let mut stopped = timeout(part, &mut self.maintenance).await.is_ok();
        let client = Arc::clone(&self.client);
        let mut failures = 0;
        loop {
            let left = by.saturating_duration_since(Instant::now());
            let one = (left / 2).max(part).min(left);
            let answer = timeout(one, client.deregister()).await;
            let error = match answer.unwrap_or_else(|elapsed| Err(self.unanswered(elapsed))) {
                Ok(()) if !stopped && self.registered_late(by - part).await => {
                    stopped = true;
                    continue;
                }
                Ok(()) => {
                    info!(
                        instance = client.id(),
                        registry = client.registry(),
                        "deregistered"
                    );
                    return Ok(());
                }
                Err(error) => error,
            };
            failures += 1;
            let left = by.saturating_duration_since(Instant::now());
            // A wait that the registry asks for must leave time for another request.
            let asked = error.retry_after().unwrap_or_default().min(left / 2);
            let wait = BACKOFF
                .after(failures, &mut fastrand::Rng::new())
                .max(asked);
            if !error.is_transient() || Instant::now() + wait >= by {
                return Err(error);
            }
            debug!(
                instance = client.id(),
                "not deregistered yet: {}",
                chain(&error)
            );
            sleep(wait).await;
        }
    }

    /// Waits for the end of a registration that was under way when the registry deregistered the instance,
    /// which may be there again then. False if it does not end by that time.
    async fn registered_late(&mut self, by: Instant) -> bool {
        timeout_at(by, &mut self.maintenance).await.is_ok()
    }

    fn unanswered(&self, elapsed: Elapsed) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.client.registry().to_owned(),
            action: format!("deregister {}", self.client.id()),
            source: elapsed.into(),
        }
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar")
            .field("instance", &self.client.id())
            .field("registry", &self.client.registry())
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.maintenance.abort();
    }
}

fn runtime(action: impl FnOnce() -> String) -> Result<Handle, RegistryError> {
    Handle::try_current().map_err(|_| RegistryError::NoRuntime { action: action() })
}

#[cfg(test)]
mod tests;
