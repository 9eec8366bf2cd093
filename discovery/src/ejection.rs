//! Outlier ejection: stops sending calls to an endpoint on the evidence of its calls, and admits it
//! again after a probe and a trial call.
//!
//! Three kinds of evidence eject:
//!
//! - Failures in a row, counted apart for broken connections and for statuses, as in Envoy. They work
//!   with two instances as well as with a thousand.
//! - A failing share far above that of all others together, with two instances or more.
//! - A success rate far below the mean (gRFC A50), with five instances or more.
//!
//! If all instances fail alike, none stands out and none is ejected.
//!
//! [`state`] holds the states and all transitions, [`counters`] what calls count, [`gate`] what calls
//! read of the state, [`Health`] all three of one endpoint, [`evidence`] the comparison of one with the
//! others, and [`Ejector`] the decision over a set.
//! Calls write without a lock; [`Ejector::review`] runs in the endpointer's task. The time is a
//! parameter, and nothing is sent.

mod counters;
mod ejector;
mod evidence;
mod gate;
mod health;
#[cfg(all(test, discovery_loom))]
mod loom_tests;
#[cfg(test)]
mod noise_tests;
mod policy;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    counters::Classification,
    ejector::{Ejector, FAILING_SHARE, Review, SUCCESS_RATE},
    health::Health,
};
pub use self::{
    policy::EjectionPolicy,
    status::{Ejection, EjectionPhase},
};
