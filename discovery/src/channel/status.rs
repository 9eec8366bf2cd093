//! The state of a channel and of each instance at one moment, and a subscription to changes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    BoxError,
    ejection::Ejection,
    endpoint::{ConnectivityState, Endpoint, EndpointCalls, WatchedHealth},
    endpointer::{
        Endpointer, SetPolicy, SetState, Snapshot,
        shares::{share_of, warm_up_share},
    },
    instance::{Instance, Withdrawal},
    registry::{InstanceSet, RegistryError},
};

/// The state of a channel at one moment.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChannelStatus {
    /// Number of instances that calls may pick.
    pub instances: usize,
    /// Number of those that the registry's last good answer offers. The others are kept as a last resort,
    /// see [`RemovalProtection`](crate::RemovalProtection).
    pub listed: usize,
    /// Number of further instances in that answer whose checks do not pass. Zero without
    /// [`passing_only`](crate::ChannelBuilder::passing_only).
    pub unusable: usize,
    /// Number of instances with a working connection whose watched health, if it is watched, lets calls
    /// use it.
    pub ready: usize,
    /// Number of connected instances whose watched health keeps calls from them, see
    /// [`ChannelBuilder::health_service`](crate::ChannelBuilder::health_service).
    pub not_serving: usize,
    /// Number of instances that a call can use now: those with a working connection and, without
    /// [eager](crate::ChannelBuilder::eager) connections, those to which a call would make one.
    pub available: usize,
    /// True once the registry has answered.
    pub discovered: bool,
    /// The time of the registry's last good answer. It advances in quiet times too, without a change
    /// that [`Channel::changes`](crate::Channel::changes) reports. Serialized as
    /// `confirmed_seconds_ago`.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "confirmed_seconds_ago",
            serialize_with = "crate::serialize::optional_seconds_since"
        )
    )]
    pub confirmed: Option<Instant>,
    /// The error of the registry since its last good answer.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_error")
    )]
    pub registry_error: Option<Arc<RegistryError>>,
}

impl ChannelStatus {
    /// `registry` is the current value of the watch.
    pub(super) fn of(snapshot: &Snapshot, registry: &InstanceSet) -> Self {
        let count = |counts: fn(&Endpoint) -> bool| {
            snapshot
                .all
                .iter()
                .filter(|endpoint| counts(endpoint))
                .count()
        };
        Self {
            instances: snapshot.all.len(),
            listed: count(|endpoint| endpoint.last_resort().is_none()),
            ready: count(|endpoint| endpoint.transport().is_some()),
            not_serving: count(|endpoint| {
                let health = endpoint.subchannel().watched_health();
                health.refusal().is_some() && endpoint.connection().is_some()
            }),
            available: count(|endpoint| {
                let idle = endpoint.subchannel().state() == ConnectivityState::Idle;
                idle || endpoint.transport().is_some()
            }),
            discovered: snapshot.state != SetState::Unknown,
            unusable: snapshot.unusable,
            confirmed: registry.confirmed,
            registry_error: registry.error.clone(),
        }
    }
}

/// One instance, as a channel sees it at one moment.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The registry's description of the instance.
    pub instance: Arc<Instance>,
    /// The state of its connection. As in gRPC, an instance whose health is watched and that does not
    /// report `SERVING` is in [`TransientFailure`](ConnectivityState::TransientFailure).
    pub connectivity: ConnectivityState,
    /// The health that it reports on the connection.
    pub health: WatchedHealth,
    /// True while outlier ejection keeps calls from it.
    pub ejected: bool,
    /// Until when it is ejected, and why.
    pub ejection: Option<Ejection>,
    /// The share of its calls that it receives: less than 1 in the slow start after an ejection, and
    /// while it warms up.
    pub share: f64,
    /// The share that its [warm-up](crate::WarmUp) leaves it; `None` if it does not warm up.
    pub warm_up_share: Option<f64>,
    /// The weight that follows from its load reports (feature `orca`), in calls a second at full
    /// utilization; `None` while the registry's weight is in use.
    pub reported_weight: Option<f64>,
    /// True if the registry does not offer it and it is kept as a last resort, see
    /// [`RemovalProtection`](crate::RemovalProtection).
    pub protected: bool,
    /// Since when it is kept as a last resort, and why.
    pub protection: Option<Protection>,
    /// Calls under way.
    pub in_flight: u32,
    /// The limit of calls under way, if there is one; it may be learnt.
    pub concurrency_limit: Option<u32>,
    /// Numbers and latencies of its calls.
    pub calls: EndpointCalls,
    /// Smoothed latency of its answers; `None` before the first. It follows a peak at once, as balancers
    /// need it.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_seconds")
    )]
    pub latency: Option<Duration>,
    /// The reason why the last connection failed or could not be made.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_box_error")
    )]
    pub last_error: Option<Arc<BoxError>>,
}

/// An instance that the registry does not offer and that is kept as a last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Protection {
    /// The time since which the registry does not offer it. Serialized as `seconds`, the time passed.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "seconds", serialize_with = "crate::serialize::seconds_since")
    )]
    pub since: Instant,
    /// The reason why the registry does not offer it.
    pub withdrawal: Withdrawal,
}

impl EndpointStatus {
    /// All of the current set, sorted by ID.
    pub(super) fn all(endpointer: &Endpointer) -> Vec<Self> {
        let now = tokio::time::Instant::now();
        let policy = endpointer.policy();
        let snapshot = endpointer.snapshot();
        let all = snapshot.all.iter();
        all.map(|endpoint| Self::of(endpoint, now, &policy))
            .collect()
    }

    fn of(endpoint: &Endpoint, now: tokio::time::Instant, policy: &SetPolicy) -> Self {
        let (subchannel, stats) = (endpoint.subchannel(), endpoint.stats());
        let health = stats.health();
        let ejection = health.ejection();
        Self {
            instance: Arc::clone(endpoint.instance()),
            health: subchannel.watched_health(),
            connectivity: match endpoint.connectivity() {
                // The runtime that drove the connection has ended.
                ConnectivityState::Ready if endpoint.connection().is_none() => {
                    ConnectivityState::TransientFailure
                }
                connectivity => connectivity,
            },
            ejected: ejection.is_some(),
            ejection,
            share: share_of(endpoint, now, &policy.ejection, &policy.warm_up),
            warm_up_share: warm_up_share(endpoint, now, &policy.warm_up),
            reported_weight: stats.reported_weight(),
            protected: endpoint.last_resort().is_some(),
            protection: endpoint.last_resort().map(|resort| Protection {
                since: resort.since().into_std(),
                withdrawal: resort.withdrawal(),
            }),
            in_flight: stats.in_flight(),
            concurrency_limit: stats.concurrency_limit(),
            calls: stats.calls(now.into_std()),
            latency: stats.latency(now.into_std()),
            last_error: subchannel.last_error(),
        }
    }
}

/// A subscription to the changes of a channel: an instance added or removed, a connection made or
/// lost, an ejection, an answer of the registry.
///
/// Changes in quick succession may be reported as one.
#[derive(Clone, Debug)]
pub struct Changes {
    versions: watch::Receiver<u64>,
}

/// The channel's background work has ended: it was dropped, or its runtime has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channel was dropped or its runtime has ended")]
pub struct ChannelEnded;

impl Changes {
    pub(super) fn new(mut versions: watch::Receiver<u64>) -> Self {
        versions.borrow_and_update();
        Self { versions }
    }

    /// Waits for the next change since the subscription or the last return.
    ///
    /// Cancel safe: no change is missed.
    ///
    /// # Errors
    ///
    /// If the channel was dropped or its runtime has ended.
    pub async fn changed(&mut self) -> Result<(), ChannelEnded> {
        self.versions.changed().await.map_err(|_| ChannelEnded)
    }
}
