//! Eureka as a registry: the answers that a real one does not give on demand, from fakes.

#![cfg(feature = "eureka")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod fake;
mod faults;
mod peers;
mod register;
#[path = "../sets/mod.rs"]
mod sets;
mod support;
