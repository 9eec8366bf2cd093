//! Client-side service discovery, load balancing and retry for tonic.

mod backoff;
pub mod balance;
mod channel;
mod code;
pub mod connection;
mod deadline;
mod ejection;
pub mod endpoint;
mod endpointer;
mod error;
mod filter;
mod future;
mod grpc;
mod hash;
mod instance;
pub mod metrics;
mod probe;
mod protocol;
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
        BuildError, Changes, Channel, ChannelBuilder, ChannelEnded, ChannelStatus, EndpointStatus,
        InProcess, ResponseBody, ResponseFuture, ServedBy,
    },
    code::{Code, UnknownCode},
    deadline::Deadline,
    ejection::EjectionPolicy,
    endpoint::ConnectivityState,
    endpointer::RemovalProtection,
    error::{BoxError, InvalidSetting, chain},
    filter::zone::Locality,
    future::BoxFuture,
    hash::HashKey,
    instance::{Instance, InvalidInstance},
    protocol::InvalidDeadline,
    registrar::{Registrar, RegistrationState},
    retry::{Attempt, BudgetPolicy, CallError, CallErrorKind, Hedge, RetryPolicy},
};

/// The README's Rust, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
