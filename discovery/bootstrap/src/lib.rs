//! The parts of a service around its handlers: flags, logging, signals, health, reflection, serving,
//! registration and an orderly shutdown.
//!
//! [`Server`] runs the whole life of a service in one call, inside [`block_on`]. The other modules are
//! for its `main`:
//!
//! | module | contents |
//! |---|---|
//! | [`args`] | reads the command line and the environment |
//! | [`logging`] | log output and its flags |
//! | [`registry`] | the flags that select a registry |
//! | [`values`] | parsers of flag values |
//! | [`signals`] | SIGINT, SIGTERM, SIGHUP and SIGQUIT |

mod activity;
pub mod args;
mod batched;
mod cancel_on_shutdown;
mod client_stream;
mod deadline;
mod flood;
mod frames;
#[macro_use]
mod grpc;
mod guarded;
mod health;
mod limit;
mod limits;
pub mod logging;
mod messages;
mod one_message;
mod peers;
pub mod registry;
mod request_body;
mod requests;
mod runtime;
mod serve;
mod server;
mod shed;
pub mod signals;
mod thinned;
pub mod values;

pub use self::{
    grpc::Services,
    limit::raise_open_files,
    limits::Limits,
    request_body::RequestBody,
    requests::Endless,
    runtime::block_on,
    server::{Listen, Server, Serving, Stage, announce},
    thinned::Thinned,
};
pub use tonic::codec::CompressionEncoding;
