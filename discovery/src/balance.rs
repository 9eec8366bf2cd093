//! Load balancing: the choice of the endpoint for the next attempt of a call.
//!
//! A policy is pure: it does no I/O, and time and randomness come in with the [`Context`]. A
//! [`Balancer`] lives as long as the channel and keeps the state that a change of the set must not
//! reset, such as the position of a rotation. For each set it prepares a [`Picker`], which holds what
//! makes picks from that set fast.
//!
//! # A custom balancer
//!
//! [`Endpoint::new`](crate::endpoint::Endpoint::new) and [`Context::new`] test it without a network:
//!
//! ```
//! use std::sync::Arc;
//! use discovery::{Instance, balance::{Balancer, Context, Picker}, endpoint::Endpoint};
//!
//! /// Sends a call to the instance whose index is the remainder of the call's key.
//! #[derive(Clone, Copy)]
//! struct KeyModulo;
//!
//! impl Balancer for KeyModulo {
//!     fn picker(&self, _candidates: &[Arc<Endpoint>]) -> Box<dyn Picker> {
//!         Box::new(*self)
//!     }
//! }
//!
//! impl Picker for KeyModulo {
//!     fn pick(&self, candidates: &[Arc<Endpoint>], context: &Context) -> usize {
//!         let key = context.key.unwrap_or(context.random);
//!         (key % candidates.len() as u64) as usize + context.attempt as usize
//!     }
//! }
//!
//! # fn main() -> Result<(), discovery::InvalidInstance> {
//! let instances = [Instance::new("127.0.0.1", 8001)?, Instance::new("127.0.0.1", 8002)?];
//! let set = instances.map(|instance| Arc::new(Endpoint::new(instance)));
//! let picker = KeyModulo.picker(&set);
//! let context = Context::new(std::time::Instant::now(), 7).with_key(4);
//! assert_eq!(picker.pick(&set, &context), 0);
//! assert_eq!(picker.pick(&set, &context.with_attempt(1)), 1);
//! # Ok(())
//! # }
//! ```
//!
//! [`ChannelBuilder::custom_balancer`](crate::ChannelBuilder::custom_balancer) installs it. To add a
//! policy to this crate, add a file beside `round_robin.rs` and a line to [`Policy`].

mod balancer;
pub mod consistent_hash;
mod context;
pub mod least_request;
pub mod peak_ewma;
mod policy;
pub mod random;
mod reported;
mod rotation;
pub mod round_robin;
#[cfg(test)]
pub(crate) mod testing;
mod two_choices;
mod weight;
pub mod weighted_round_robin;

pub use self::{
    balancer::{Balancer, Picker},
    consistent_hash::ConsistentHash,
    context::Context,
    least_request::LeastRequest,
    peak_ewma::PeakEwma,
    policy::{Policy, UnknownPolicy},
    random::Random,
    round_robin::RoundRobin,
    weighted_round_robin::WeightedRoundRobin,
};
