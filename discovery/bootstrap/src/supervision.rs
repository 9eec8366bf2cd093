//! The reports of a running server to its service manager: ready, its status, reloads, the end.
//!
//! ```text
//! listening -> each registration was tried -> READY=1 -> STATUS=... at each change -> STOPPING=1
//!                                                |  ^
//!                                  RELOADING=1   v  |   READY=1
//!                                               reload
//! ```
//!
//! An unreachable registry does not delay READY=1 further: the server serves, and the status says so.

use std::{future::pending, sync::Arc, time::Duration};

use discovery::{RegistrationState, chain, watch};
use futures_util::future::{BoxFuture, select_all};
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use crate::notify::Manager;

/// Maximum time for which READY=1 waits for the first attempts to register. The manager's limit for a
/// start is 90 s by default.
const FIRST_ATTEMPT: Duration = Duration::from_secs(10);

/// A registration of the server.
pub(crate) struct Registered {
    pub(crate) id: String,
    pub(crate) state: watch::Receiver<RegistrationState>,
}

/// Reads the settings again, whenever it is asked to.
pub(crate) struct Reload {
    pub(crate) asked: Arc<Notify>,
    pub(crate) action: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

/// See the [module](self). Dropping it ends the reports.
pub(crate) struct Supervision {
    manager: Arc<Manager>,
    reports: JoinSet<()>,
    _watchdog: JoinSet<()>,
}

impl Supervision {
    /// Starts to report. The server listens.
    pub(crate) fn start(registered: Vec<Registered>, reload: Option<Reload>) -> Self {
        let manager = Arc::new(Manager::from_env());
        let mut watchdog = JoinSet::new();
        let runtime = Arc::clone(&manager);
        watchdog.spawn(async move { runtime.keep_alive().await });
        let mut reports = JoinSet::new();
        reports.spawn(report(Arc::clone(&manager), registered, reload));
        Self {
            manager,
            reports,
            _watchdog: watchdog,
        }
    }

    /// The server begins to stop, and ends within `limit`. Only the watchdog goes on.
    pub(crate) async fn stopping(&mut self, limit: Duration) {
        self.reports.shutdown().await;
        self.manager.stopping(limit).await;
    }
}

async fn report(manager: Arc<Manager>, mut registered: Vec<Registered>, reload: Option<Reload>) {
    let tried = async {
        while !registered.iter().all(Registered::is_tried) {
            changed(&mut registered).await;
        }
    };
    let _late = timeout(FIRST_ATTEMPT, tried).await;
    manager.ready(&status(&registered)).await;
    loop {
        tokio::select! {
            () = changed(&mut registered) => manager.status(&status(&registered)).await,
            action = asked(reload.as_ref()) => {
                manager.reloading().await;
                action.await;
                manager.ready(&status(&registered)).await;
            }
        }
    }
}

impl Registered {
    /// True if it is in the registry, or an attempt has failed.
    fn is_tried(&self) -> bool {
        !matches!(*self.state.borrow(), RegistrationState::Registering(None))
    }
}

/// Waits for the next change of any.
async fn changed(registered: &mut [Registered]) {
    let changes = registered.iter_mut().map(|one| {
        Box::pin(async {
            if one.state.changed().await.is_err() {
                // The registration has ended.
                pending::<()>().await;
            }
        })
    });
    let changes: Vec<_> = changes.collect();
    if changes.is_empty() {
        pending::<()>().await;
    }
    select_all(changes).await;
}

/// Waits for the request to reload, and begins.
async fn asked(reload: Option<&Reload>) -> BoxFuture<'static, ()> {
    match reload {
        Some(reload) => {
            reload.asked.notified().await;
            (reload.action)()
        }
        None => pending().await,
    }
}

/// The state of the server in one line.
fn status(registered: &[Registered]) -> String {
    let mut status = "Serving".to_owned();
    for Registered { id, state } in registered {
        let part = match &*state.borrow() {
            RegistrationState::Registering(None) => format!("registering {id}"),
            RegistrationState::Registering(Some(error)) => {
                format!("{id} is not registered: {}", chain(&**error))
            }
            state if state.is_passing() => format!("{id} is registered"),
            _ => format!("{id} is registered, and its health check does not pass"),
        };
        status.push_str("; ");
        status.push_str(&part);
    }
    status
}

#[cfg(test)]
mod tests {
    use discovery::registry::RegistryError;

    use super::*;

    #[tokio::test]
    async fn a_change_of_any_registration_is_seen_and_the_status_names_it() {
        let first = watch::Sender::new(RegistrationState::Registering(None));
        let second = watch::Sender::new(RegistrationState::Registering(None));
        let mut registered = [("a", &first), ("b", &second)].map(|(id, state)| Registered {
            id: id.to_owned(),
            state: state.subscribe(),
        });
        assert_eq!(status(&registered), "Serving; registering a; registering b");
        assert!(!registered[1].is_tried());
        // A registration that has ended does not hide the other's change.
        drop(first);
        let error = RegistryError::Unreachable {
            registry: "consul://x:1".to_owned(),
            action: "register b".to_owned(),
            source: "connection refused".into(),
        };
        second.send_replace(RegistrationState::Registering(Some(Arc::new(error))));
        changed(&mut registered).await;
        assert!(registered[1].is_tried());
        let seen = status(&registered);
        assert!(
            seen.starts_with("Serving; registering a; b is not registered: ")
                && seen.contains("connection refused"),
            "{seen}"
        );
        assert_eq!(status(&[]), "Serving");
    }
}
