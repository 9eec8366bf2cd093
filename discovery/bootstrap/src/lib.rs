//! What a service binary needs around its server, the same for all of them: flags, logging,
//! signals, health and reflection, and serving with an orderly end.
//!
//! The order of life: bind, serve, report healthy, register; on a signal report unhealthy,
//! deregister, let the watchers learn of it, finish what was accepted, exit 0. A second signal
//! exits at once.

pub mod args;
mod cancel_on_shutdown;
mod first_byte;
pub mod grpc;
pub mod logging;
pub mod registry;
mod requests;
pub mod serve;
pub mod signals;
pub mod values;
