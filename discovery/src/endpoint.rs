//! One instance, its connection, and what the client has seen of it.
//!
//! Both halves outlive a change of the set: an instance that stays keeps its connection and its
//! [`Stats`]; one that returns under the same ID at another address gets new ones.

pub(crate) mod link;
pub mod stats;

use std::sync::Arc;

use tokio::time::Instant;

pub(crate) use self::link::{Connector, Link, Phase};
pub use self::stats::Stats;
use crate::{connection::Transport, instance::Instance};

/// One instance of the set that a balancer picks from.
#[derive(Debug)]
pub struct Endpoint {
    instance: Arc<Instance>,
    stats: Arc<Stats>,
    link: Arc<Link>,
    /// Since when the registry no longer names it, while its connection still works.
    missing_since: Option<Instant>,
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
            link: Arc::new(Link::default()),
            missing_since: None,
        }
    }

    /// What the registry knows of it.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// What the client has seen of it.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn missing_since(&self) -> Option<Instant> {
        self.missing_since
    }

    /// The same process with what the registry now says of it. The caller has checked that the
    /// address is the same.
    pub(crate) fn renewed(&self, instance: Arc<Instance>, missing_since: Option<Instant>) -> Self {
        Self {
            instance,
            stats: Arc::clone(&self.stats),
            link: Arc::clone(&self.link),
            missing_since,
        }
    }

    /// The connection, if it can take a call now.
    pub(crate) fn transport(&self) -> Option<Arc<Box<dyn Transport>>> {
        self.link
            .transport()
            .filter(|transport| !transport.is_closed())
    }

    /// Whether it is the same connection to the same process.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }
}
