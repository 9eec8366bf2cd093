//! One instance, its connection, and what the client has seen of it.
//!
//! Both halves outlive a change of the set: an instance that stays keeps its connection and its
//! [`Stats`]; one that returns under the same ID at another address gets new ones.

mod connector;
mod driver;
mod event_log;
mod failures;
mod health_watch;
mod joined;
mod last_resort;
mod pacer;
mod recent;
mod schedule;
mod serving;
pub mod stats;
mod subchannel;

use std::sync::Arc;

pub(crate) use self::{
    connector::Connector, event_log::Event, last_resort::LastResort, recent::Ended,
    subchannel::Subchannel,
};
pub use self::{
    serving::WatchedHealth,
    stats::{EndpointCalls, Stats},
    subchannel::ConnectivityState,
};
use crate::{connection::Transport, instance::Instance};

/// One instance of the set that a balancer picks from.
#[derive(Debug)]
pub struct Endpoint {
    instance: Arc<Instance>,
    stats: Arc<Stats>,
    subchannel: Arc<Subchannel>,
    /// Set while the registry does not offer it and it is kept as a last resort.
    last_resort: Option<Arc<LastResort>>,
}

impl Endpoint {
    /// An endpoint without history or connection: what a policy's own test picks from.
    #[must_use]
    pub fn new(instance: Instance) -> Self {
        Self::of(Arc::new(instance))
    }

    pub(crate) fn of(instance: Arc<Instance>) -> Self {
        Self {
            instance,
            stats: Arc::default(),
            subchannel: Arc::new(Subchannel::default()),
            last_resort: None,
        }
    }

    /// The instance as the registry describes it.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The calls in flight, latency and failures that the client has recorded.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn shared_stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    pub(crate) fn subchannel(&self) -> &Arc<Subchannel> {
        &self.subchannel
    }

    /// Set while the registry does not offer it.
    pub(crate) fn last_resort(&self) -> Option<&Arc<LastResort>> {
        self.last_resort.as_ref()
    }

    /// The same process with what the registry now says of it. The caller has checked that the
    /// address is the same.
    pub(crate) fn renewed(
        &self,
        instance: Arc<Instance>,
        last_resort: Option<Arc<LastResort>>,
    ) -> Self {
        Self {
            instance,
            stats: Arc::clone(&self.stats),
            subchannel: Arc::clone(&self.subchannel),
            last_resort,
        }
    }

    /// The connection, if it can take a call now and the instance's health service lets it.
    pub(crate) fn transport(&self) -> Option<Arc<Box<dyn Transport>>> {
        let serves = self.subchannel.watched_health().allows_calls();
        serves.then(|| self.connection()).flatten()
    }

    /// The connection, if it is open, whatever the instance's health service reports.
    pub(crate) fn connection(&self) -> Option<Arc<Box<dyn Transport>>> {
        self.subchannel
            .transport()
            .filter(|transport| !transport.is_closed())
    }

    /// The state of the connection for calls, as gRFC A17 has it: an instance that does not serve has
    /// failed, and one whose first answer is awaited is connecting.
    pub(crate) fn connectivity(&self) -> ConnectivityState {
        match self.subchannel.state() {
            ConnectivityState::Ready => match self.subchannel.watched_health() {
                WatchedHealth::Awaited => ConnectivityState::Connecting,
                health if health.refusal().is_some() => ConnectivityState::TransientFailure,
                _ => ConnectivityState::Ready,
            },
            state => state,
        }
    }

    /// True if it is the same connection to the same process.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.id() == other.id()
    }

    /// Identifies the connection, as [`is`](Self::is) does, as long as the endpoint exists.
    pub(crate) fn id(&self) -> EndpointId {
        EndpointId(Arc::as_ptr(&self.subchannel).addr())
    }
}

/// Tells endpoints apart without a reference to them. A later endpoint may have the ID of one that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndpointId(usize);
