//! The state of a channel and of each instance at one moment, and a subscription to changes.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    BoxError,
    endpoint::{ConnectivityState, Endpoint},
    endpointer::{SetState, Snapshot},
    instance::Instance,
    registry::RegistryError,
};

/// The state of a channel at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelStatus {
    /// Number of known instances.
    pub instances: usize,
    /// Number of instances in the registry's last good answer. The others are protected removals.
    pub listed: usize,
    /// Number of instances with a working connection.
    pub ready: usize,
    /// Number of instances that a call can use now: those with a working connection and, without
    /// [eager](crate::ChannelBuilder::eager) connections, those to which a call would make one.
    pub available: usize,
    /// True once the registry has answered.
    pub discovered: bool,
    /// The time of the registry's last good answer.
    pub confirmed: Option<Instant>,
    /// The error of the registry since its last good answer.
    pub registry_error: Option<Arc<RegistryError>>,
}

impl ChannelStatus {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let count = |counts: fn(&Endpoint) -> bool| {
            snapshot
                .all
                .iter()
                .filter(|endpoint| counts(endpoint))
                .count()
        };
        Self {
            instances: snapshot.all.len(),
            listed: count(|endpoint| endpoint.missing_since().is_none()),
            ready: count(|endpoint| endpoint.transport().is_some()),
            available: count(|endpoint| {
                let idle = endpoint.subchannel().state() == ConnectivityState::Idle;
                idle || endpoint.transport().is_some()
            }),
            discovered: snapshot.state != SetState::Unknown,
            confirmed: snapshot.confirmed,
            registry_error: snapshot.registry_error.clone(),
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
    /// True if the registry no longer names it and it is kept as a last resort.
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
            protected: endpoint.missing_since().is_some(),
            in_flight: stats.in_flight(),
            latency: stats.latency(Instant::now()),
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
