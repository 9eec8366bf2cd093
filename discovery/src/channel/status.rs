//! The state of a channel and of each instance at one moment, and a subscription to changes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    BoxError, clock,
    endpoint::{ConnectivityState, Endpoint},
    endpointer::{SetState, Snapshot},
    instance::Instance,
    registry::{InstanceSet, RegistryError},
};

/// The state of a channel at one moment.
#[derive(Clone, Debug)]
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
    /// Number of instances with a working connection.
    pub ready: usize,
    /// Number of instances that a call can use now: those with a working connection and, without
    /// [eager](crate::ChannelBuilder::eager) connections, those to which a call would make one.
    pub available: usize,
    /// True once the registry has answered.
    pub discovered: bool,
    /// The time of the registry's last good answer. It advances in quiet times too, without a change
    /// that [`Channel::changes`](crate::Channel::changes) reports.
    pub confirmed: Option<Instant>,
    /// The error of the registry since its last good answer.
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
#[non_exhaustive]
pub struct EndpointStatus {
    /// The registry's description of the instance.
    pub instance: Arc<Instance>,
    /// The state of its connection.
    pub connectivity: ConnectivityState,
    /// True while outlier ejection keeps calls from it.
    pub ejected: bool,
    /// True if the registry does not offer it and it is kept as a last resort, see
    /// [`RemovalProtection`](crate::RemovalProtection).
    pub protected: bool,
    /// Calls under way.
    pub in_flight: u32,
    /// Smoothed latency of its answers; `None` before the first.
    pub latency: Option<Duration>,
    /// The reason why the last connection failed or could not be made.
    pub last_error: Option<Arc<BoxError>>,
}

impl EndpointStatus {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let (subchannel, stats) = (endpoint.subchannel(), endpoint.stats());
        Self {
            instance: Arc::clone(endpoint.instance()),
            connectivity: match subchannel.state() {
                // The runtime that drove the connection has ended.
                ConnectivityState::Ready if endpoint.transport().is_none() => {
                    ConnectivityState::TransientFailure
                }
                connectivity => connectivity,
            },
            ejected: !stats.health().is_admitted(),
            protected: endpoint.last_resort().is_some(),
            in_flight: stats.in_flight(),
            latency: stats.latency(clock::now()),
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
