//! The settings that select a channel's instances and connect to them, to show.

use std::time::Duration;

use crate::{backoff::Backoff, filter::zone::Locality};

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
