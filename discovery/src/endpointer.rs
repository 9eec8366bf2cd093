//! The endpointer keeps the set of endpoints in step with an instancer and publishes it.
//!
//! One task per channel owns the set. It handles every change: a new instance set, a connection made
//! or lost, an outlier to eject, a grace period that is over. It publishes a new [`Snapshot`] behind an
//! atomic pointer, so that a call takes no lock and does not wait.

mod guard;
mod load;
mod policy;
mod protection;
mod report;
pub(crate) mod set;
pub(crate) mod shares;
pub(crate) mod snapshot;

use std::{collections::HashSet, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, broadcast, watch},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};

pub use self::protection::RemovalProtection;
pub(crate) use self::{
    policy::SetPolicy,
    snapshot::{SetState, Snapshot},
};
use self::{
    report::Report,
    set::{Offer, Set},
    snapshot::Selection,
};
use crate::{
    ejection::{Ejector, Health},
    endpoint::{ConnectivityState, Connector, Endpoint},
    event::ChannelEvent,
    instance::Instance,
    metrics::{Endpoints, PUBLISH_INTERVAL},
    probe,
    registry::{InstanceSet, Instancer},
    watch::Receiver,
};

/// Minimum interval between two updates because of connections or reviews, per endpoint: several times
/// what an update costs. Small sets are updated at every change.
const SPACING: Duration = Duration::from_micros(2);
const SMALL_SET: usize = 500;
/// Maximum interval between updates when no timer is pending.
const IDLE: Duration = Duration::from_secs(60);
/// Interval between probes of an ejected endpoint without a connection. A new connection is probed at
/// once.
const PROBE_AGAIN: Duration = Duration::from_secs(1);
/// Time limit of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The settings of an endpointer.
pub(crate) struct Config {
    pub(crate) policy: SetPolicy,
    /// True if only instances that pass their checks are picked.
    pub(crate) passing_only: bool,
    pub(crate) connector: Arc<Connector>,
    pub(crate) metrics: Endpoints,
}

/// A handle to the task; dropping it ends the task and retires the connections.
pub(crate) struct Endpointer {
    snapshot: Arc<ArcSwap<Snapshot>>,
    changed: Arc<Notify>,
    version: watch::Receiver<u64>,
    connector: Arc<Connector>,
    task: AbortHandle,
    registry: Receiver<InstanceSet>,
    policy: watch::Sender<SetPolicy>,
    // Keeps the watch running.
    instancer: Arc<dyn Instancer>,
}

impl Endpointer {
    pub(crate) fn start(instancer: Arc<dyn Instancer>, mut config: Config) -> Self {
        let mut watch = instancer.watch();
        let (policy, policies) = watch::channel(config.policy.clone());
        let authoritative = instancer.authoritative();
        config.policy = policy::in_effect(config.policy, authoritative);
        config.connector.watch_health(config.policy.health.as_ref());
        let changed = Arc::clone(&config.connector.changed);
        let connector = Arc::clone(&config.connector);
        let (version_tx, version) = watch::channel(0);
        let mut task = Task {
            snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::unknown(
                &*config.policy.balancer,
            ))),
            version: version_tx,
            set: Set::default(),
            registry: InstanceSet::default(),
            usable: Arc::default(),
            ranking: Vec::new(),
            unreachable: HashSet::new(),
            ejector: Ejector::new(Arc::clone(&config.policy.ejection)),
            due: Instant::now(),
            published: Instant::now(),
            authoritative,
            config,
        };
        let snapshot = Arc::clone(&task.snapshot);
        let registry = watch.clone();
        // A set that is known already is there for the first call.
        task.take(&watch.borrow_and_update().clone());
        task.publish();
        Self {
            snapshot,
            changed,
            version,
            connector,
            registry,
            policy,
            task: tokio::spawn(task.run(watch, policies)).abort_handle(),
            instancer,
        }
    }

    /// Replaces the settings. Connections of endpoints that stay in the set stay as they are.
    #[cfg(feature = "service-config")]
    pub(crate) fn set_policy(&self, policy: SetPolicy) {
        self.policy.send_replace(policy);
    }

    /// The settings as they were given.
    pub(crate) fn policy(&self) -> SetPolicy {
        self.policy.borrow().clone()
    }

    /// The current set.
    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Reads the current set together with the present value of the watch, whose times advance without a
    /// notification.
    pub(crate) fn status<T>(&self, read: impl FnOnce(&Snapshot, &InstanceSet) -> T) -> T {
        read(&self.snapshot.load(), &self.registry.borrow())
    }

    /// Changes with every published snapshot.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }

    /// The settings as they take effect for this registry.
    pub(crate) fn policy_in_effect(&self) -> SetPolicy {
        policy::in_effect(self.policy(), self.instancer.authoritative())
    }

    /// Sends an event about the channel as a whole, if someone reads.
    #[cfg(feature = "service-config")]
    pub(crate) fn emit(&self, kind: impl FnOnce() -> crate::event::ChannelEventKind) {
        self.connector.events.emit(kind);
    }

    /// The events from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<ChannelEvent> {
        self.connector.events.subscribe()
    }

    /// True if the task has ended with its runtime.
    pub(crate) fn has_ended(&self) -> bool {
        self.version.has_changed().is_err()
    }

    /// Requests a review of the endpoints' records.
    pub(crate) fn review(&self) {
        self.changed.notify_one();
    }

    /// Tries unreachable endpoints sooner, because a call finds no other.
    pub(crate) fn urge(&self) {
        self.connector.urge();
    }

    /// True if connections are made before a call needs them.
    pub(crate) fn is_eager(&self) -> bool {
        self.connector.eager
    }

    /// Starts to connect to an idle endpoint.
    pub(crate) fn wake(&self, endpoint: &Endpoint) {
        endpoint
            .subchannel()
            .wake(endpoint.instance(), &self.connector);
    }
}

impl Drop for Endpointer {
    fn drop(&mut self) {
        self.task.abort();
        for endpoint in &self.snapshot.load().all {
            endpoint.subchannel().retire();
        }
    }
}

struct Task {
    config: Config,
    /// True if a removal is never the registry's own failure.
    authoritative: bool,
    snapshot: Arc<ArcSwap<Snapshot>>,
    version: watch::Sender<u64>,
    set: Set,
    registry: InstanceSet,
    /// The instances in it that may be picked.
    usable: Arc<[Arc<Instance>]>,
    /// The subset's ranking of them.
    ranking: Vec<usize>,
    /// IDs of the unreachable endpoints when the subset was last chosen.
    unreachable: HashSet<String>,
    ejector: Ejector,
    /// The time of the next update without an event.
    due: Instant,
    /// The time of the last update.
    published: Instant,
}

impl Task {
    async fn run(
        mut self,
        mut instances: Receiver<InstanceSet>,
        mut policies: watch::Receiver<SetPolicy>,
    ) {
        let mut publication = interval_at(Instant::now() + PUBLISH_INTERVAL, PUBLISH_INTERVAL);
        publication.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = publication.tick() => {
                    self.config.metrics.publish();
                    self.config.connector.target.drain();
                    self.config.connector.log.summarize();
                    continue;
                }
                changed = instances.changed() => {
                    if changed.is_err() {
                        // The instancer is held by the handle that aborts this task.
                        return;
                    }
                    let latest = instances.borrow_and_update().clone();
                    self.take(&latest);
                }
                changed = policies.changed() => {
                    if changed.is_err() {
                        // The sender is held by the handle that aborts this task.
                        return;
                    }
                    let policy = policies.borrow_and_update().clone();
                    self.adopt(policy);
                }
                () = self.config.connector.changed.notified() => {
                    let earliest = self.published + self.spacing();
                    if Instant::now() < earliest {
                        self.due = self.due.min(earliest);
                        continue;
                    }
                }
                () = sleep_until(self.due) => {}
            }
            self.publish();
        }
    }

    /// Applies other settings.
    fn adopt(&mut self, policy: SetPolicy) {
        let policy = policy::in_effect(policy, self.authoritative);
        self.ejector.set_policy(Arc::clone(&policy.ejection));
        self.config.connector.watch_health(policy.health.as_ref());
        let same_subset = self.config.policy.subset == policy.subset;
        self.config.policy = policy;
        self.apply_limits();
        if same_subset || self.registry.confirmed.is_none() {
            return;
        }
        let subset = self.config.policy.subset.as_ref();
        self.ranking = subset.map_or_else(Vec::new, |subset| subset.ranking(&self.usable));
        let instances = Arc::clone(&self.registry.instances);
        self.follow(&instances);
    }

    /// Minimum interval between two updates because of connections and reviews.
    fn spacing(&self) -> Duration {
        let count = self.set.endpoints().len();
        if count < SMALL_SET {
            return Duration::ZERO;
        }
        SPACING.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Applies an update of the registry.
    fn take(&mut self, latest: &InstanceSet) {
        let news = !Arc::ptr_eq(&latest.instances, &self.registry.instances);
        let confirmed = latest.confirmed != self.registry.confirmed;
        let recovered = self.registry.error.is_some() && latest.error.is_none();
        if latest.confirmed.is_some() && (news || self.registry.confirmed.is_none()) {
            self.usable = if self.config.passing_only {
                passing(&latest.instances)
            } else {
                Arc::clone(&latest.instances)
            };
            if let Some(subset) = &self.config.policy.subset {
                self.ranking = subset.ranking(&self.usable);
            }
            self.follow(&latest.instances);
        }
        if confirmed && (news || recovered) {
            // A change of the answer may mean that unreachable instances are back.
            for endpoint in self.set.endpoints() {
                endpoint.subchannel().retry_now();
            }
        }
        Report::by(&self.config.connector).registry(&self.registry, latest);
        self.registry = latest.clone();
    }

    /// Updates the set to the usable ones of these instances, or to this client's subset of them.
    fn follow(&mut self, instances: &[Arc<Instance>]) {
        let usable = Arc::clone(&self.usable);
        let subset = self.config.policy.subset.as_ref();
        let part = subset.map(|subset| subset.choose(&usable, &self.ranking, &self.unreachable()));
        let offer = Offer {
            chosen: part.as_deref().unwrap_or(&usable),
            usable: &usable,
            all: instances,
        };
        let change = self
            .set
            .update(offer, &self.config.policy.protection, Instant::now());
        self.apply_limits();
        if self.config.policy.subset.is_some() {
            self.unreachable = self.unreachable().into_iter().map(str::to_owned).collect();
        }
        if !change.protected.is_empty() {
            let offered = offer.chosen.len();
            guard::start(&change.protected, offered, &self.config.connector.changed);
        }
        Report::by(&self.config.connector).change(&change, &offer);
        for endpoint in &change.removed {
            endpoint.subchannel().retire();
        }
    }

    /// Applies the limit of concurrent calls to all endpoints, new ones included.
    fn apply_limits(&self) {
        for endpoint in self.set.endpoints() {
            endpoint.stats().set_limit(&self.config.policy.concurrency);
        }
    }

    /// The IDs of the endpoints that cannot be connected to.
    fn unreachable(&self) -> HashSet<&str> {
        let endpoints = self.set.endpoints().iter();
        endpoints
            .filter(|endpoint| endpoint.subchannel().is_unreachable())
            .map(|endpoint| endpoint.instance().id.as_str())
            .collect()
    }

    /// True if other endpoints are unreachable than when the subset was chosen.
    fn needs_another_subset(&self) -> bool {
        if self.config.policy.subset.is_none() {
            return false;
        }
        let unreachable = self.unreachable();
        unreachable.len() != self.unreachable.len()
            || unreachable.iter().any(|id| !self.unreachable.contains(*id))
    }

    /// Reviews the records and publishes a snapshot.
    fn publish(&mut self) {
        let now = Instant::now();
        self.published = now;
        if self.needs_another_subset() {
            let instances = Arc::clone(&self.registry.instances);
            self.follow(&instances);
        }
        for (endpoint, reason) in self.set.expire(&self.config.policy.protection, now) {
            Report::by(&self.config.connector).expired(&endpoint, reason);
            endpoint.subchannel().retire();
        }
        if self.config.connector.eager {
            for endpoint in self.set.endpoints() {
                endpoint
                    .subchannel()
                    .wake(endpoint.instance(), &self.config.connector);
            }
        }
        let next = self.review(now);
        let selection = Selection::of(self.set.endpoints(), now, &self.config.policy);
        self.config.metrics.show(self.set.endpoints());
        self.due = [
            next,
            self.follow_load(&selection, now),
            selection.next_change,
            self.set.next_expiry(&self.config.policy.protection),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now + IDLE);
        let snapshot = Snapshot::new(
            selection,
            self.set.endpoints().to_vec(),
            &*self.config.policy.balancer,
            &self.registry,
            self.registry.instances.len() - self.usable.len(),
        );
        self.snapshot.store(Arc::new(snapshot));
        self.version.send_modify(|version| *version += 1);
    }

    fn review(&mut self, now: Instant) -> Option<Instant> {
        let endpoints = self.set.endpoints();
        let records: Vec<&Health> = endpoints.iter().map(|e| e.stats().health()).collect();
        for (endpoint, record) in endpoints.iter().zip(&records) {
            if let Some(at) = endpoint.subchannel().connected_at() {
                record.connected(at);
            }
        }
        let review = self.ejector.review(now, &records);
        Report::by(&self.config.connector).review(&review, endpoints);
        for index in &review.admitted {
            endpoints[*index].stats().forget_latency();
        }
        for index in review.probe {
            self.probe(Arc::clone(&endpoints[index]));
        }
        review.next
    }

    /// Probes an ejected endpoint, in a task of its own.
    fn probe(&self, endpoint: Arc<Endpoint>) {
        let changed = Arc::clone(&self.config.connector.changed);
        tokio::spawn(async move {
            let health = endpoint.stats().health();
            let now = Instant::now();
            match endpoint.connection() {
                Some(transport) => {
                    let connected = endpoint.subchannel().connected_at();
                    let result = timeout(PROBE_TIMEOUT, probe::health(&**transport)).await;
                    // A new connection without an answer is not better than the old one.
                    let replace =
                        result.is_err() && connected.is_some_and(|at| health.was_ejected_after(at));
                    let passed = matches!(
                        result,
                        Ok(probe::Health::Serving | probe::Health::NoService)
                    );
                    health.end_probe(passed);
                    if replace {
                        endpoint.subchannel().renew(&transport);
                    }
                }
                // The trial call will connect.
                None if endpoint.subchannel().state() == ConnectivityState::Idle => {
                    health.end_probe(true);
                }
                None => health.postpone_probe(now, now + PROBE_AGAIN),
            }
            changed.notify_one();
        });
    }
}

/// The instances that pass their checks.
fn passing(instances: &[Arc<Instance>]) -> Arc<[Arc<Instance>]> {
    let usable = instances.iter().filter(|i| i.health.is_usable());
    usable.cloned().collect()
}
