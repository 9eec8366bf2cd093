//! Client-side service discovery, load balancing and retry for tonic.

mod backoff;
pub mod balance;
mod channel;
pub mod connection;
mod ejection;
pub mod endpoint;
mod endpointer;
mod error;
mod filter;
mod grpc;
mod hash;
mod instance;
mod metrics;
mod probe;
#[cfg(feature = "tls")]
mod provider;
mod registrar;
pub mod registry;
pub mod retry;
mod sync;

/// The TLS library, for [`connection::Tls::with_config`] and for installing a crypto provider.
#[cfg(feature = "tls")]
pub use rustls;

pub use self::{
    backoff::Backoff,
    channel::{
        BuildError, Channel, ChannelBuilder, ChannelStatus, HashKey, InProcess, ResponseBody,
        ResponseFuture, ServedBy,
    },
    ejection::EjectionPolicy,
    endpointer::RemovalProtection,
    error::{BoxError, chain},
    filter::zone::Locality,
    grpc::{Code, UnknownCode, timeout as grpc_timeout},
    instance::{Instance, InvalidInstance},
    registrar::{Registrar, RegistrationState},
};

/// The README's Rust, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
