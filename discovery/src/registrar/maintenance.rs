//! The background task of a registrar: registers, maintains, and registers again.

use std::{future, sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::state::RegistrationState;
use crate::{
    backoff::Backoff,
    error::chain,
    registry::{CheckState, RegistrationClient, RegistryError},
    watch,
};

/// The waits between attempts. Short enough that an instance is registered within two seconds after
/// its registry is back, with jitter so that a thousand instances do not register at once.
pub(super) const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

pub(super) struct Maintenance {
    client: Arc<dyn RegistrationClient>,
    state: watch::Sender<RegistrationState>,
    stop: watch::Receiver<bool>,
    check: Option<watch::Receiver<CheckState>>,
    failures: Failures,
    /// The check's state that was logged last.
    logged: CheckState,
}

impl Maintenance {
    pub(super) fn new(
        client: Arc<dyn RegistrationClient>,
        state: watch::Sender<RegistrationState>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            check: client.check_state(),
            client,
            state,
            stop,
            failures: Failures::default(),
            logged: CheckState::Passing,
        }
    }

    /// Runs until a stop is requested.
    pub(super) async fn run(mut self) {
        let client = Arc::clone(&self.client);
        while !*self.stop.borrow() {
            let lost = match client.register().await {
                Ok(()) => {
                    self.failures.reset();
                    info!(
                        instance = client.id(),
                        registry = client.registry(),
                        "registered"
                    );
                    match self.maintain(&*client).await {
                        Some(lost) => lost,
                        None => return,
                    }
                }
                Err(error) => {
                    self.failures.count();
                    error
                }
            };
            let wait = self.failures.report(client.id(), &lost);
            self.state
                .send_replace(RegistrationState::Registering(Some(Arc::new(lost))));
            tokio::select! {
                () = sleep(wait) => {}
                _ = self.stop.changed() => return,
            }
        }
    }

    /// Maintains the registration until it is lost, and publishes the check's state meanwhile.
    /// `None` when a stop is requested.
    async fn maintain(&mut self, client: &dyn RegistrationClient) -> Option<RegistryError> {
        let maintaining = client.maintain();
        tokio::pin!(maintaining);
        loop {
            self.publish_check();
            tokio::select! {
                lost = &mut maintaining => return Some(lost),
                _ = self.stop.changed() => return None,
                () = changed(&mut self.check) => {}
            }
        }
    }

    fn publish_check(&mut self) {
        let check = self
            .check
            .as_mut()
            .map(|check| check.borrow_and_update().clone());
        let check = check.unwrap_or_default();
        self.log_check(&check);
        self.state
            .send_replace(RegistrationState::Registered { check });
    }

    /// Logs the check once per change of its status. The text alone may change at every check.
    fn log_check(&mut self, check: &CheckState) {
        if std::mem::discriminant(check) == std::mem::discriminant(&self.logged) {
            return;
        }
        let (instance, registry) = (self.client.id(), self.client.registry());
        match check {
            CheckState::Passing => info!(instance, registry, "the health check passes again"),
            CheckState::Warning { output } => {
                warn!(instance, registry, "the health check warns: {output}");
            }
            CheckState::Critical { output } => {
                warn!(instance, registry, "the health check is critical: {output}");
            }
        }
        self.logged = check.clone();
    }
}

/// Ends with the next change of the check. Never ends for a registry that does not report it.
async fn changed(check: &mut Option<watch::Receiver<CheckState>>) {
    if let Some(receiver) = check {
        if receiver.changed().await.is_ok() {
            return;
        }
        // The sender is gone: the last state stays.
        *check = None;
    }
    future::pending::<()>().await;
}

/// The failed attempts in a row, and what was logged about them.
#[derive(Default)]
struct Failures {
    count: u32,
    logged: String,
}

impl Failures {
    fn reset(&mut self) {
        self.count = 0;
    }

    fn count(&mut self) {
        self.count = self.count.saturating_add(1);
    }

    /// Logs the failure and returns the wait before the next attempt.
    fn report(&mut self, instance: &str, lost: &RegistryError) -> Duration {
        let failures = self.count;
        let wait = if failures == 0 {
            // Just lost: the registry may be back already, but one that loses registrations at once
            // must not be called in a tight loop.
            BACKOFF.first
        } else {
            BACKOFF.after(failures, &mut fastrand::Rng::new())
        };
        let wait = wait.max(lost.retry_after().unwrap_or_default());
        let reason = chain(lost);
        // Equal failures are logged at powers of two, so that a long outage does not fill the log.
        if failures < 2 || failures.is_power_of_two() || reason != self.logged {
            warn!(instance, failures, retry_in = ?wait, "not registered: {reason}");
        } else {
            debug!(instance, failures, retry_in = ?wait, "not registered: {reason}");
        }
        self.logged = reason;
        wait
    }
}
