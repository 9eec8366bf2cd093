//! The registry: what it lists, whether it answers, and how often it is asked.
//!
//! A watch asks as the Consul watch does: one question is always held back until something newer is
//! there; after an answer it waits as long as the Consul watch does while changes keep coming, after
//! a failure it backs off. Wait times that pass without news are left out: no phase is that long.

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
};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::changing::Changing;

/// Between two answers while changes keep coming, and after failures: the Consul watch's values.
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// A registry of one service.
#[derive(Clone)]
pub(crate) struct Listing {
    state: Arc<Changing<State>>,
    requests: Arc<AtomicU64>,
    watches: Arc<AtomicU64>,
    subset: usize,
}

struct State {
    up: bool,
    version: u64,
    instances: Arc<[Arc<Instance>]>,
    /// Dead, and not noticed before this moment.
    unnoticed: Vec<(Arc<Instance>, Instant)>,
}

impl Listing {
    /// Each watch is to see as many instances as `subset`.
    pub(crate) fn new(instances: Arc<[Arc<Instance>]>, subset: usize) -> Self {
        Self {
            state: Arc::new(Changing::new(State {
                up: true,
                version: 1,
                instances,
                unnoticed: Vec::new(),
            })),
            requests: Arc::default(),
            watches: Arc::default(),
            subset,
        }
    }

    /// Lists these from now on, sorted by ID, and those that are dead without being noticed.
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

    /// Goes on listing a dead instance for this long.
    pub(crate) fn list_dead(&self, instance: Arc<Instance>, notice: Duration) {
        let until = Instant::now() + notice;
        self.state
            .change(|state| state.unnoticed.push((instance, until)));
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.state.change(|state| state.up = up);
    }

    /// Questions asked so far.
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
        let client = self.watches.fetch_add(1, Ordering::Relaxed);
        let view = View {
            client,
            size: self.subset,
        };
        let task = tokio::spawn(follow(
            Arc::clone(&self.state),
            Arc::clone(&self.requests),
            view,
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

/// One client's watch.
async fn follow(
    state: Arc<Changing<State>>,
    requests: Arc<AtomicU64>,
    view: View,
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
            sets.send_replace(InstanceSet {
                instances: view.of(&instances),
                confirmed: Some(Instant::now()),
                error: None,
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

/// Which instances a client sees: those that score highest for it (rendezvous hashing), so that a
/// change of the fleet changes few of them.
struct View {
    client: u64,
    size: usize,
}

impl View {
    fn of(&self, all: &Arc<[Arc<Instance>]>) -> Arc<[Arc<Instance>]> {
        if all.len() <= self.size {
            return Arc::clone(all);
        }
        let mut scored: Vec<_> = all
            .iter()
            .map(|instance| (self.score(&instance.id), instance))
            .collect();
        scored.select_nth_unstable_by(self.size, |a, b| b.0.cmp(&a.0));
        scored.truncate(self.size);
        scored.sort_by(|a, b| a.1.id.cmp(&b.1.id));
        scored
            .into_iter()
            .map(|(_, instance)| Arc::clone(instance))
            .collect()
    }

    fn score(&self, id: &str) -> u64 {
        // FNV-1a over the ID, and the finalizer of SplitMix64 over both.
        let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut x = hash ^ self.client.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}
