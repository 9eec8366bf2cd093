//! DNS as a registry, with a real Knot, with Consul's own DNS, and with a scripted server for what these
//! do not answer on demand.

#![cfg(feature = "dns")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod consul;
mod faults;
mod knot;
mod records;
mod scripted;
#[path = "../sets/mod.rs"]
mod sets;

use std::sync::Arc;

use discovery::registry::{InstanceSet, Instancer, Query, connect};
use discovery::watch::Receiver;

/// A watch of `trim_service`.
fn watch(url: &str) -> (Arc<dyn Instancer>, Receiver<InstanceSet>) {
    watch_query(url, &Query::new("trim_service"))
}

fn watch_query(url: &str, query: &Query) -> (Arc<dyn Instancer>, Receiver<InstanceSet>) {
    let instancer = connect(url).unwrap().instancer(query).unwrap();
    let sets = instancer.watch();
    (instancer, sets)
}

/// The addresses of a set.
fn addresses(set: &InstanceSet) -> Vec<String> {
    set.instances.iter().map(|i| i.authority()).collect()
}
