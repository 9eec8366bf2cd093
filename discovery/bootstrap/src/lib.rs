//! The parts of a service around its handlers: flags, logging, signals, health, reflection, serving,
//! registration and an orderly shutdown.
//!
//! [`Server`] runs the whole life of a service in one call, inside [`block_on`]. It also notifies the
//! service manager (systemd's `sd_notify`), if there is one. The other modules are for its `main`:
//!
//! | module | contents |
//! |---|---|
//! | [`args`] | reads the command line and the environment |
//! | [`files`] | the versions of files that are read again |
//! | [`generate`] | completions and manual pages, for packages |
//! | [`logging`] | log output and its flags |
//! | [`registry`] | the flags that select a registry |
//! | [`values`] | parsers of flag values |
//! | [`spans`] | the spans of a server, exported over OTLP as the variables `OTEL_*` say |
//! | [`signals`] | SIGINT, SIGTERM, SIGHUP and SIGQUIT |

mod activity;
pub mod args;
mod batched;
mod cancel_on_shutdown;
mod client_stream;
mod deadline;
mod dispatch;
pub mod files;
mod flood;
mod frames;
pub mod generate;
#[macro_use]
mod grpc;
mod guarded;
mod health;
mod limit;
mod limits;
pub mod logging;
mod messages;
mod notify;
mod observed;
mod one_message;
mod otlp;
mod peers;
pub mod registry;
mod request_body;
mod requests;
mod runtime;
mod serve;
mod server;
mod shed;
pub mod signals;
pub mod spans;
mod supervision;
mod thinned;
mod tls;
mod traced;
mod transport;
pub mod values;

pub use self::{
    grpc::Services,
    limit::raise_open_files,
    limits::Limits,
    observed::ObservedChannel,
    request_body::RequestBody,
    requests::Endless,
    runtime::block_on,
    server::{Listen, Server, Serving, Stage, announce},
    thinned::Thinned,
    tls::{ClientAuth, ClientTls, ServerTls},
};
pub use tonic::codec::CompressionEncoding;
