//! The connection of one endpoint, and the [`Factory`] that makes it.
//!
//! Go kit's `Factory` turns an instance into an endpoint and a closer. Here it gives a
//! [`Connection`]: a [`Transport`] that carries calls, and a future that drives the connection and
//! ends with it. The state of every connection is therefore known without sending a call.

pub(crate) mod body;
pub mod http2;
pub(crate) mod origin;
#[cfg(feature = "tls")]
mod tls;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

pub use self::body::RequestBody;
pub use self::http2::Http2;
#[cfg(feature = "tls")]
pub use self::tls::{Tls, TlsError};
use crate::{BoxError, instance::Instance};

/// Makes the connection of an endpoint.
///
/// The default is [`Http2`]. Implement it for a transport that is not HTTP/2 over a byte stream.
pub trait Factory: Send + Sync + 'static {
    /// Connects to `instance`. Completes when the server has shown that it is alive and speaks the
    /// protocol. The caller limits the time and cancels by dropping the future.
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>>;
}

/// An established connection.
#[non_exhaustive]
pub struct Connection {
    /// Carries calls.
    pub transport: Box<dyn Transport>,
    /// Must be polled for the connection to work. Ends when the connection accepts no new calls,
    /// with the reason if it broke. Calls in flight may still finish afterwards.
    pub driver: BoxFuture<'static, Result<(), BoxError>>,
}

impl Connection {
    /// A connection that sends calls through `transport` for as long as `driver` runs.
    #[must_use]
    pub fn new(
        transport: impl Transport,
        driver: impl Future<Output = Result<(), BoxError>> + Send + 'static,
    ) -> Self {
        Self {
            transport: Box::new(transport),
            driver: Box::pin(driver),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

/// The body of a response as a transport gives it.
pub type TransportBody = UnsyncBoxBody<Bytes, BoxError>;

/// Carries calls over one connection, many at a time.
pub trait Transport: Send + Sync + 'static {
    /// Sends one request. Its URI has a path, and a scheme and an authority only if the caller or
    /// [`ChannelBuilder::origin`](crate::ChannelBuilder::origin) set them. Dropping the future
    /// cancels the call.
    fn send(
        &self,
        request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>>;

    /// True if the connection is known to accept no more calls. Must become true when the driver
    /// ends or is dropped.
    fn is_closed(&self) -> bool;

    /// The number of calls that the server accepts at a time; more are queued on this side.
    /// Default: unlimited. Read only while many calls are in flight.
    fn capacity(&self) -> usize {
        usize::MAX
    }
}

/// A call that got no response.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
#[non_exhaustive]
pub struct SendError {
    /// The transport's own error.
    pub source: BoxError,
    /// True if the server certainly did not start to process the request. Such a request may be
    /// sent again, idempotent or not (gRPC A6, transparent retry).
    pub never_processed: bool,
}

impl SendError {
    /// The server may have processed the request.
    #[must_use]
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self {
            source: source.into(),
            never_processed: false,
        }
    }

    /// The server certainly did not start to process the request.
    #[must_use]
    pub fn unprocessed(source: impl Into<BoxError>) -> Self {
        Self {
            source: source.into(),
            never_processed: true,
        }
    }
}

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Refused, unreachable, host not found, or closed before the first byte.
    #[error("cannot connect")]
    Connect(#[source] BoxError),
    /// The server speaks another protocol, or the TLS settings do not accept it.
    #[error("handshake failed")]
    Handshake(#[source] BoxError),
    /// The server did not answer in time.
    #[error("no connection within {0:?}")]
    Timeout(std::time::Duration),
}
