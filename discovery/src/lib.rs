//! Client-side service discovery, load balancing and retry for tonic: what Go kit's `sd` and `lb`
//! packages do for Go.
//!
//! A [`Channel`] finds the instances of a service in a registry, keeps a connection to each, picks one
//! for every attempt, repeats what may be repeated, and stops sending calls to faulty instances. A
//! generated client takes it in place of [`tonic::transport::Channel`](https://docs.rs/tonic).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use discovery::Channel;
//! use proto::{TrimRequest, trim_client::TrimClient};
//!
//! let channel = Channel::builder("consul://localhost:8500", "trim_service")
//!     .idempotent(["/pb.Trim/TrimSpace"])
//!     .build()?;
//! let mut client = TrimClient::new(channel);
//! let response = client.trim_space(TrimRequest { s: " a b ".into() }).await?;
//! assert_eq!(response.into_inner().s, "ab");
//! # Ok(())
//! # }
//! ```
//!
//! A server registers itself with a [`Registrar`]. The folder `examples` has short programs for each
//! use: layers around a channel, streaming, balancers, registries and byte streams of your own.
//!
//! # How it works
//!
//! ```text
//!              one call                                     one change
//!
//!   generated client                              registry: Consul, a list, your own
//!         |                                                    | watch
//!      Channel    attempts, deadline, budget               Instancer    whole sets; the last good
//!         |                                                    |        one stays
//!     Balancer    picks from a snapshot  <------------  endpointer      subsets, zones, ejection
//!         |
//!     Endpoint    its connection, kept in the background; its statistics ----> outlier ejection
//!         |
//!      instance
//! ```
//!
//! A call takes no lock: it picks from an immutable snapshot behind an atomic pointer. The cost of a
//! pick does not depend on the number of instances. Registry, connections and health probes are
//! background tasks of the runtime in which the channel was built.
//!
//! # Features
//!
//! | feature | source | default |
//! |---|---|---|
//! | watch of a registry, last good set kept | Consul's blocking queries; see [`registry`] | on |
//! | [removal protection](RemovalProtection) | Eureka's self-preservation, Envoy's panic threshold | on, if more than half of the instances leave at once |
//! | [round robin](balance::round_robin) | gRPC | on |
//! | [weighted round robin](balance::weighted_round_robin) by the load that servers report | gRFC A51, A58 | off |
//! | [least request](balance::least_request) | gRFC A48, Envoy; two choices | off |
//! | [peak EWMA](balance::peak_ewma) | Finagle, Linkerd | off |
//! | [consistent hash](balance::consistent_hash) with bounded load | Karger 1997, Mirrokni 2016 | off |
//! | [subsets](ChannelBuilder::subset) | gRFC A68 | off |
//! | [zones](Locality) | Envoy's zone aware routing | off |
//! | [retries](retry), transparent retries, pushback | gRFC A6 | 3 attempts in 500 ms |
//! | [retry budget](BudgetPolicy) | Finagle, tower | 10 % of the successful calls |
//! | [options of one call](CallOptions), and [where it goes](InstanceFilter) | gRPC's call options, Envoy's subsets | – |
//! | [service config](config), replaced while the channel runs | gRFC A2, A6, A42, A48, A50, A58, A68 | off |
//! | [time of an attempt, learnt by method](RetryPolicy::learn_attempt_timeout) | – | on |
//! | [hedging](Hedge) | gRFC A6, with the 95th percentile as the delay | off |
//! | [outlier ejection](EjectionPolicy) | gRFC A50, Envoy, Linkerd | on, with a probe before the return |
//! | [slow start](EjectionPolicy::slow_start) | Envoy | 5 s after an ejection |
//! | [warm-up](WarmUp) of instances that join | Envoy, gRFC A100 | off |
//! | HTTP/2 with known connection state | RFC 9113; see [`connection`] | on |
//! | plain HTTP/1.1 and HTTP/2, with idempotent methods and `Retry-After` | RFC 9110, RFC 9112; see `http::Channel` | `http` feature |
//! | [health watching](ChannelBuilder::health_service) | gRFC A17 | off |
//! | [concurrency limits](limit), fixed or learnt | Netflix's concurrency-limits, TCP Vegas | off |
//! | [registration](Registrar), repeated when it is lost | Go kit, Consul | – |
//! | [metrics] | the `metrics` facade; gRFCs A66, A91, A94, A96 | once a recorder is installed; on demand |
//! | [traces](crate#tracing) | gRFC A72, OpenTelemetry | once a subscriber takes them |
//! | [state](Channel::snapshot) and [events](Channel::events) | gRPC's channelz | on demand |
//!
//! # What an outcome means
//!
//! | outcome of an attempt | another attempt | counts against the instance |
//! |---|---|---|
//! | no connection, `REFUSED_STREAM`, `GOAWAY` before it was processed | always, and it does not count as one | no; the connection's state changes |
//! | connection lost after the request was sent | yes (`UNAVAILABLE` is in [`codes`](RetryPolicy::codes)) | yes |
//! | overdue: no answer in [the method's time](RetryPolicy::learn_attempt_timeout) | if the method is idempotent, beside the first, which may still answer | yes, unless the method takes longer everywhere |
//! | no answer by the deadline, or a reset, `CANCELLED` or `DEADLINE_EXCEEDED` at that time | no: `DEADLINE_EXCEEDED` | yes, unless the method takes longer everywhere |
//! | `UNIMPLEMENTED` without a message, an HTTP page (404, 502), another content type | elsewhere, always; the caller's answer if all say so | if another instance answers the method |
//! | a status in [`codes`](RetryPolicy::codes) | yes | by its code, below |
//! | a status in [`idempotent_codes`](RetryPolicy::idempotent_codes) | if the method is idempotent | by its code, below |
//! | any other status | no | by its code, below |
//! | an answer | – | no |
//!
//! `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS` count as failures of the
//! instance. `RESOURCE_EXHAUSTED` counts towards its failing share only. Other codes are answers.
//!
//! A call that ends without an answer has a [`CallError`] behind its status, with the kind of the error
//! and every attempt.
//!
//! # Tracing
//!
//! A call is a `tracing` span of the target `discovery::rpc` and the level TRACE, and each of its attempts is
//! a span under it. Names and events follow gRFC A72 (`Sent.pb.Trim.TrimSpace`, `Attempt.pb.Trim.TrimSpace`,
//! `previous-rpc-attempts`, `transparent-retry`), other attributes OpenTelemetry's conventions for RPC. The
//! fields `otel.name`, `otel.kind` and `otel.status_code` are those of the crate `tracing-opentelemetry`. A
//! subscriber that does not enable this target costs a call one comparison per span.
//! [`ChannelBuilder::propagate`] carries the context to the server.
//!
//! # Cargo features
//!
//! | feature | contents | default |
//! |---|---|---|
//! | `consul` | the Consul registry | on |
//! | `dns` | the DNS registry, which lists instances | off |
//! | `embedded` | a folder of the machine as a registry | off |
//! | `etcd` | the etcd v3 registry | off |
//! | `eureka` | the Eureka registry | off |
//! | `zookeeper` | the ZooKeeper registry | off |
//! | `tls-ring`, `tls-aws-lc` | TLS to instances and to registries, with the provider of that name | off |
//! | `tls` | TLS with the provider that the application installs | off |
//! | `http` | a channel for plain HTTP/1.1 and HTTP/2 | off |
//! | `descriptors` | idempotent methods from a protobuf descriptor set | off |
//! | `orca` | load reports: read by weighted round robin, and written by a layer for tonic's servers | off |
//! | `serde` | [`ChannelSnapshot`] and [`ChannelEvent`] can be serialized | off |
//! | `service-config` | policy from gRPC's service config JSON, which a running channel can replace | off |
//!
//! The public API contains types of `http`, `bytes`, `tower`, `tonic` and, with TLS, `rustls`, which is
//! re-exported. A byte stream of your own implements `AsyncRead` and `AsyncWrite` of `tokio`.

mod backoff;
pub mod balance;
mod channel;
mod clock;
mod code;
#[cfg(feature = "service-config")]
pub mod config;
pub mod connection;
mod deadline;
mod ejection;
pub mod endpoint;
mod endpointer;
mod error;
mod event;
mod filter;
mod future;
mod grpc;
mod hash;
#[cfg(feature = "http")]
pub mod http;
mod instance;
pub mod limit;
pub mod metrics;
#[cfg(feature = "orca")]
pub mod orca;
mod payload;
mod probe;
mod protocol;
#[cfg(feature = "tls")]
mod provider;
mod registrar;
pub mod registry;
pub mod retry;
#[cfg(feature = "serde")]
mod serialize;
mod sync;
mod warm_up;
pub mod watch;

/// The TLS library, for [`connection::Tls::with_config`] and for installing a crypto provider.
#[cfg(feature = "tls")]
pub use rustls;

pub use self::{
    backoff::Backoff,
    channel::{
        BuildError, CallOptions, CallTotals, Changes, Channel, ChannelBuilder, ChannelEnded,
        ChannelPolicy, ChannelSettings, ChannelSnapshot, ChannelStatus, EndpointStatus, Events,
        InProcess, InstanceFilter, Protection, ResponseBody, ResponseFuture, ServedBy,
    },
    code::{Code, UnknownCode},
    deadline::Deadline,
    ejection::{Ejection, EjectionPhase, EjectionPolicy},
    endpoint::{ConnectivityState, EndpointCalls, WatchedHealth},
    endpointer::RemovalProtection,
    error::{BoxError, InvalidSetting, chain},
    event::{ChannelEvent, ChannelEventKind},
    filter::zone::Locality,
    future::BoxFuture,
    hash::HashKey,
    instance::{Instance, InstanceHealth, InvalidInstance, Withdrawal},
    protocol::InvalidDeadline,
    registrar::{Registrar, RegistrationState},
    retry::{Attempt, BudgetPolicy, CallError, CallErrorKind, EarlierAttempts, Hedge, RetryPolicy},
    warm_up::WarmUp,
};

/// The Rust of the READMEs, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[doc = include_str!("../../README.zh-CN.md")]
struct Readme;
