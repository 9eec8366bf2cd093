//! The traits of a policy. The [module above](super) has an example.

use std::sync::Arc;

use super::context::Context;
use crate::endpoint::Endpoint;

/// A load balancing policy. It lives as long as its channel.
///
/// The [module](super) has an example of a custom balancer and its test.
pub trait Balancer: Send + Sync + 'static {
    /// Prepares picks from these endpoints. Called for every change of the set, and for empty sets.
    fn picker(&self, candidates: &[Arc<Endpoint>]) -> Box<dyn Picker>;
}

/// A policy prepared for one set of endpoints.
pub trait Picker: Send + Sync + 'static {
    /// The index of the endpoint for the next attempt. `candidates` is the slice that the picker was
    /// made for, and is not empty. An index beyond the end wraps around.
    ///
    /// The channel takes the endpoints from this index on in turn until one is connected and has not
    /// been tried by this call.
    ///
    /// Called once per attempt, from many threads at the same time: it must not lock or allocate.
    fn pick(&self, candidates: &[Arc<Endpoint>], context: &Context) -> usize;
}
