//! A channel for plain HTTP: the engine of [`discovery::Channel`](crate::Channel) for servers of HTTP/1.1
//! and HTTP/2.
//!
//! Registries, balancers, retries, budget, learnt attempt times, ejection, removal protection, snapshot,
//! events and metrics are those of a gRPC channel. This module has HTTP's own rules.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use discovery::http::Channel;
//! use http_body_util::{BodyExt as _, Empty};
//! use tower::ServiceExt as _;
//!
//! let channel = Channel::builder("consul://localhost:8500", "orders").build()?;
//! let request = http::Request::get("/orders/17").body(Empty::<Bytes>::new())?;
//! let response = channel.oneshot(request).await?;
//! println!("{}: {:?}", response.status(), response.into_body().collect().await?.to_bytes());
//! # Ok(())
//! # }
//! ```
//!
//! The path of a request is what counts. An authority in its URI, or a `Host` header, is sent as it is; without
//! one the instance's own address is, or [`origin`](ChannelBuilder::origin).
//!
//! # What is repeated
//!
//! | outcome of an attempt | another attempt | counts against the instance |
//! |---|---|---|
//! | no connection, or the request was certainly not sent or not processed | always, and it does not count as one | no |
//! | an idle connection that the server had closed | of an idempotent request, over another connection | no |
//! | the connection was lost after the request was sent, or within a short body | of an idempotent request | yes |
//! | overdue: no answer in the time learnt from others | of an idempotent request, beside the first | yes, unless it takes longer everywhere |
//! | a status in [`Rules::with_retry_statuses`]: 502, 503, 504 | of an idempotent request | yes |
//! | 429 with `Retry-After` | at another instance, if there is one | towards its failing share only |
//! | 503 with `Retry-After` | of an idempotent request, at another instance, if there is one | towards its failing share only |
//! | 500, and other 5xx but 501 and 505 | no | yes |
//! | any other status | no | no |
//!
//! Idempotent are GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110, section 9.2.2), and any request with
//! an `Idempotency-Key` header. [`CallOptions::with_idempotent`](crate::CallOptions::with_idempotent) in the
//! request's extensions says it of one request. Only a request that was complete when the call began, of at
//! most [`replay_limit`](crate::RetryPolicy::replay_limit) bytes, is sent again.
//!
//! When attempts end, the last response of a server is the caller's, unchanged: a 503 is a response, not an
//! error. A call without any has a [`CallError`](crate::CallError), whose
//! [`kind`](crate::CallError::kind) says why, such as
//! [`Deadline`](crate::CallErrorKind::Deadline); [`status_for`] has the status for a proxy's own caller.
//!
//! [`InProcess`](crate::InProcess) takes an axum router in place of the servers, for tests.
//!
//! # Policy
//!
//! With the feature `service-config`, the builder and
//! [`Channel::set_service_config`](Channel#method.set_service_config) take a [service config](crate::config), as
//! a gRPC channel does: a file with the policy, read again when it changes. Its `methodConfig` and `routes` name
//! requests by path: `{"path": "/orders"}` is that path and those below it, with `"method": "GET"` only the
//! requests with that HTTP method, and `{}` is all of them. Of the entries that name a request, the one with the
//! longest path holds, and of two with the same path the one with a method. `metadata` of a route are headers.
//!
//! ```
//! # #[cfg(feature = "service-config")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use discovery::{config::ServiceConfig, http::Channel};
//!
//! let json = r#"{
//!     "methodConfig": [
//!         {"name": [{}], "timeout": "0.5s"},
//!         {"name": [{"path": "/reports", "method": "POST"}], "timeout": "10s",
//!          "discovery": {"idempotent": true, "maxAttempts": 2}}
//!     ],
//!     "discovery": {
//!         "balancer": "least-request",
//!         "concurrencyLimit": "auto",
//!         "routes": [{"name": [{"path": "/beta"}], "split": [{"tags": ["canary"]}]}]
//!     }
//! }"#;
//! let config = ServiceConfig::parse(json)?;
//! assert!(config.warnings().is_empty());
//! let builder = Channel::builder("consul://localhost:8500", "orders").service_config(config);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "service-config"))]
//! # fn main() {}
//! ```
//!
//! `idempotent` takes the place of the rules above. What HTTP has no use for is an error: names of services,
//! what goes by gRPC's status codes (`retryPolicy`, `nonFatalStatusCodes`, `retryCodes`, `idempotentCodes`), sizes
//! of messages, and `healthCheckConfig`. The [`Rules`] are not part of a config: what a status means is known
//! to the application.
//!
//! [`CallOptions`](crate::CallOptions) in a request's extensions set the same for one request.
//!
//! # Time
//!
//! The deadline of a call is [`retry_timeout`](ChannelBuilder::retry_timeout), or 500 ms; a
//! [`Deadline`](crate::Deadline) or [`CallOptions::with_timeout`](crate::CallOptions::with_timeout) in the
//! request's extensions sets it for one. It holds up to the response's head, and for a body with a
//! `Content-Length` of at most 64 KiB up to its end; a `Deadline` holds for all of the body. No header
//! carries it.
//!
//! What is learnt of answer times is kept by method and path. Parts of the path with a digit count as one, so
//! that `/orders/17` and `/orders/18` are the same.

mod body;
mod channel;
mod health;
mod operation;
mod protocol;
mod retry_after;
mod rules;
mod transport;

pub use self::{
    body::ResponseBody,
    channel::{Channel, ChannelBuilder, ResponseFuture},
    protocol::status_for,
    rules::Rules,
};
pub use crate::connection::negotiated::Connections;
