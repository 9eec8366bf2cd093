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

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, error::Elapsed, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    backoff::Backoff,
    error::chain,
    registry::{RegistrationClient, RegistryError},
};

/// Waits between attempts to register: quick enough that an instance is back within two seconds of
/// its registry, and spread so that a thousand of them do not come at once.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// The part of the time for a deregistration that one silent request may take.
const PATIENCE: u32 = 4;

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

    /// Ends the upkeep and takes the instance out of the registry, within `limit`. A registry that is
    /// away or stalls is asked again until then.
    ///
    /// # Errors
    ///
    /// When the registry refused or did not answer in time; its health check is then what removes
    /// the instance.
    pub async fn deregister(mut self, limit: Duration) -> Result<(), RegistryError> {
        let by = Instant::now() + limit;
        self.stop.send_replace(true);
        // A registration under way must not arrive after the deregistration, so it is let finish;
        // one that hangs has arrived already, as far as it ever will.
        if timeout(limit / PATIENCE, &mut self.upkeep).await.is_err() {
            self.upkeep.abort();
        }
        let client = &self.client.0;
        let mut failures = 0;
        loop {
            let left = by.saturating_duration_since(Instant::now());
            // A connection that stalls must leave time for another.
            let one = (left / 2).max(limit / PATIENCE).min(left);
            let answer = timeout(one, client.deregister()).await;
            let error = match answer.unwrap_or_else(|elapsed| Err(self.unanswered(elapsed))) {
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
            let wait = BACKOFF.after(failures, &mut fastrand::Rng::new());
            if !error.may_pass() || Instant::now() + wait >= by {
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

    fn unanswered(&self, elapsed: Elapsed) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.client.0.registry().to_owned(),
            action: format!("deregister {}", self.client.0.id()),
            source: elapsed.into(),
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
        let reason = chain(&lost);
        // An outage of hours must not fill the log: ever fewer of equal lines stand out.
        if failures < 2 || failures.is_power_of_two() || reason != told {
            warn!(instance = client.id(), failures, retry_in = ?wait, "not registered: {reason}");
        } else {
            debug!(instance = client.id(), failures, retry_in = ?wait, "not registered: {reason}");
        }
        told = reason;
        state.send_replace(RegistrationState::Registering(Some(Arc::new(lost))));
        tokio::select! {
            () = sleep(wait) => {}
            _ = stop.changed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use futures_util::future::BoxFuture;

    use super::*;

    /// A registry that does not answer so many calls: it stalls, or refuses.
    #[derive(Default)]
    struct Flaky {
        register_stalls: bool,
        stalls: usize,
        refusals: usize,
        status: u16,
        asked: AtomicUsize,
    }

    impl RegistrationClient for Flaky {
        fn id(&self) -> &'static str {
            "a"
        }

        fn registry(&self) -> &'static str {
            "flaky"
        }

        fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
            if self.register_stalls {
                Box::pin(pending())
            } else {
                Box::pin(async { Ok(()) })
            }
        }

        fn maintain(&self) -> BoxFuture<'_, RegistryError> {
            Box::pin(pending())
        }

        fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
            let nth = self.asked.fetch_add(1, SeqCst);
            Box::pin(async move {
                if nth < self.stalls {
                    return pending().await;
                }
                if nth - self.stalls < self.refusals {
                    return Err(RegistryError::Refused {
                        registry: "flaky".to_owned(),
                        action: "deregister a".to_owned(),
                        status: self.status,
                        reason: "no".to_owned(),
                    });
                }
                Ok(())
            })
        }
    }

    const LIMIT: Duration = Duration::from_secs(2);

    /// How deregistering ended, after how many requests, and how long it took.
    async fn deregister(flaky: Flaky) -> (bool, usize, Duration) {
        let client = Arc::new(flaky);
        let registrar = Registrar::start(Arc::clone(&client) as Arc<dyn RegistrationClient>);
        tokio::task::yield_now().await;
        let begun = Instant::now();
        let done = registrar.deregister(LIMIT).await.is_ok();
        (done, client.asked.load(SeqCst), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_that_hangs_does_not_stand_in_the_way() {
        let hanging = Flaky {
            register_stalls: true,
            ..Flaky::default()
        };
        assert_eq!(deregister(hanging).await, (true, 1, LIMIT / 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_stalls_or_fails_is_asked_again() {
        let (done, asked, _) = deregister(Flaky {
            stalls: 1,
            refusals: 1,
            status: 500,
            ..Flaky::default()
        })
        .await;
        assert_eq!((done, asked), (true, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_however_long_it_stalls() {
        let (done, asked, took) = deregister(Flaky {
            register_stalls: true,
            stalls: usize::MAX,
            ..Flaky::default()
        })
        .await;
        assert!(!done && asked > 1 && took <= LIMIT, "{asked} in {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_denied_is_not_asked_again() {
        let (done, asked, _) = deregister(Flaky {
            refusals: 9,
            status: 400,
            ..Flaky::default()
        })
        .await;
        assert_eq!((done, asked), (false, 1));
    }
}
