//! The registry: its list, its outages, and the number of requests that it receives.
//!
//! A watch sends requests as the Consul watch does: one blocking query at a time, a pause after an
//! answer, and a backoff after a failure. The maximum wait of a blocking query is not simulated: no
//! phase is that long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use discovery::{
    Backoff, Instance,
    registry::{
        InstanceSet, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
    },
    watch,
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::changing::Changing;

/// Pause after an answer and backoff after a failure: the values of the Consul watch.
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// A registry of one service.
#[derive(Clone)]
pub(crate) struct Listing {
    state: Arc<Changing<State>>,
    requests: Arc<AtomicU64>,
}

struct State {
    up: bool,
    version: u64,
    instances: Arc<[Arc<Instance>]>,
    /// Crashed instances, each listed until this moment.
    unnoticed: Vec<(Arc<Instance>, Instant)>,
}

impl Listing {
    pub(crate) fn new(instances: Arc<[Arc<Instance>]>) -> Self {
        Self {
            state: Arc::new(Changing::new(State {
                up: true,
                version: 1,
                instances,
                unnoticed: Vec::new(),
            })),
            requests: Arc::default(),
        }
    }

    /// Lists these instances from now on, and those in `unnoticed`, sorted by ID.
    pub(crate) fn set(&self, mut instances: Vec<Arc<Instance>>) {
        let now = Instant::now();
        self.state.change(|state| {
            state.unnoticed.retain(|(_, until)| now < *until);
            instances.extend(
                state
                    .unnoticed
                    .iter()
                    .map(|(instance, _)| Arc::clone(instance)),
            );
            instances.sort_by(|a, b| a.id.cmp(&b.id));
            state.instances = instances.into();
            state.version += 1;
        });
    }

    /// Keeps a crashed instance in the list for this long.
    pub(crate) fn list_dead(&self, instance: Arc<Instance>, notice: Duration) {
        let until = Instant::now() + notice;
        self.state
            .change(|state| state.unnoticed.push((instance, until)));
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.state.change(|state| state.up = up);
    }

    /// Number of requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Registry for Listing {
    fn name(&self) -> &'static str {
        "simulated registry"
    }

    fn instancer(&self, _query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        let sets = watch::Sender::new(InstanceSet::default());
        let receiver = sets.subscribe();
        let task = tokio::spawn(follow(
            Arc::clone(&self.state),
            Arc::clone(&self.requests),
            sets,
        ));
        Ok(Arc::new(Watch {
            sets: receiver,
            task: task.abort_handle(),
        }))
    }

    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(RegistryError::Unsupported {
            registry: self.name().to_owned(),
            action: format!("register {}", registration.instance.id),
        })
    }
}

struct Watch {
    sets: watch::Receiver<InstanceSet>,
    task: AbortHandle,
}

impl Instancer for Watch {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.sets.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The watch of one client.
async fn follow(
    state: Arc<Changing<State>>,
    requests: Arc<AtomicU64>,
    sets: watch::Sender<InstanceSet>,
) {
    let mut seen = 0;
    let mut failures = 0;
    loop {
        requests.fetch_add(1, Ordering::Relaxed);
        let answer = state
            .wait_for(|state| {
                let answer = || (state.version, Arc::clone(&state.instances));
                (!state.up || state.version != seen).then(|| state.up.then(answer))
            })
            .await;
        if let Some((version, instances)) = answer {
            seen = version;
            failures = 0;
            sets.send_modify(|set| {
                set.instances = instances;
                set.confirmed = Some(Instant::now().into_std());
                set.error = None;
            });
            sleep(CHANGE_INTERVAL).await;
        } else {
            failures += 1;
            sets.send_modify(|set| {
                set.error = Some(Arc::new(RegistryError::Unreachable {
                    registry: "simulated registry".to_owned(),
                    action: "watch the fleet".to_owned(),
                    source: "refused".into(),
                }));
            });
            sleep(BACKOFF.after(failures, &mut fastrand::Rng::new())).await;
        }
    }
}
