//! The settings that select a channel's instances and connect to them, to show.

use std::time::Duration;

use super::chosen_factory::Probes;
use crate::{
    backoff::Backoff,
    balance::Policy,
    endpointer::SetPolicy,
    filter::{subset::Subset, zone::Locality},
    limit::ConcurrencyLimit,
};

/// The settings that select a channel's instances and connect to them, see
/// [`ChannelBuilder`](crate::ChannelBuilder).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChannelSettings {
    /// The name of the balancing [policy](crate::balance::Policy), or `custom`.
    pub balancer: &'static str,
    /// Tags that instances must have.
    pub tags: Vec<String>,
    /// True if only instances whose checks pass are picked.
    pub passing_only: bool,
    /// The datacenter of the instances, or several in order of preference.
    pub datacenter: Option<String>,
    /// Number of instances in the channel's subset.
    pub subset: Option<usize>,
    /// The location of the client.
    pub locality: Option<Locality>,
    /// The limit of concurrent calls of each instance.
    pub concurrency_limit: ConcurrencyLimit,
    /// The service whose health is watched on each connection; empty for the server as a whole.
    pub health_service: Option<String>,
    /// True if connections are made before a call needs them.
    pub eager: bool,
    /// Time for making one connection.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub connect_timeout: Duration,
    /// Waits between attempts to connect to one instance.
    pub connect_backoff: Backoff,
    /// Maximum number of connections being made at the same time.
    pub connect_parallel: usize,
}

/// Those of the settings that no service config replaces after the start.
pub(crate) struct FixedSettings {
    pub(crate) tags: Vec<String>,
    pub(crate) passing_only: bool,
    pub(crate) datacenter: Option<String>,
    pub(crate) eager: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) connect_backoff: Backoff,
    pub(crate) connect_parallel: usize,
    /// `None` if the factory is the application's own.
    #[cfg_attr(
        not(feature = "service-config"),
        allow(dead_code, reason = "shown as a config")
    )]
    pub(crate) probes: Option<Probes>,
}

impl FixedSettings {
    /// All settings, with the replaceable ones in effect.
    pub(super) fn with(&self, set: &SetPolicy) -> ChannelSettings {
        ChannelSettings {
            balancer: set.balancer_name.map_or("custom", Policy::name),
            tags: self.tags.clone(),
            passing_only: self.passing_only,
            datacenter: self.datacenter.clone(),
            subset: set.subset.as_ref().map(Subset::size),
            locality: set.locality.clone(),
            concurrency_limit: set.concurrency,
            health_service: set.health.as_deref().map(str::to_owned),
            eager: self.eager,
            connect_timeout: self.connect_timeout,
            connect_backoff: self.connect_backoff,
            connect_parallel: self.connect_parallel,
        }
    }
}
