//! Eureka as a registry: a real Eureka, and other clients of it.

#![cfg(feature = "eureka")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod clients;
mod operator;
mod security;
#[path = "../sets/mod.rs"]
mod sets;
#[path = "../eureka/support.rs"]
mod support;
