//! The parts of a service around its handlers: flags, logging, signals, health, reflection, serving,
//! registration and an orderly shutdown.
//!
//! [`Server`] runs the whole life of a service in one call. The other modules are for its `main`:
//!
//! | module | contents |
//! |---|---|
//! | [`args`] | reads the command line and the environment |
//! | [`logging`] | log output and its flags |
//! | [`registry`] | the flags that select a registry |
//! | [`values`] | parsers of flag values |
//! | [`signals`] | SIGINT and SIGTERM |

pub mod args;
mod batched;
mod cancel_on_shutdown;
mod first_byte;
mod grpc;
mod guarded;
mod limit;
pub mod logging;
pub mod registry;
mod requests;
mod runtime;
mod serve;
mod server;
pub mod signals;
pub mod values;

pub use self::{
    grpc::Services,
    runtime::block_on,
    server::{Listen, Server, Serving, Stage, announce},
};
