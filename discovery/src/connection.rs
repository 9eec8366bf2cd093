//! The connection of one endpoint, and the [`Factory`] that makes it.
//!
//! Go kit's `Factory` turns an instance into an endpoint and a closer. Ours gives a [`Connection`]:
//! a [`Transport`] that carries calls, and a future that drives it and ends when it is gone, so
//! that the state of every connection is known without sending a call into it.

pub(crate) mod body;
pub mod http2;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

pub use self::body::RequestBody;
pub use self::http2::Http2;
use crate::{BoxError, instance::Instance};

/// Makes the connection of an endpoint.
///
/// The default is [`Http2`]. Implement it for another transport: a Unix socket, a tunnel, a server
/// in the same process for a test.
pub trait Factory: Send + Sync + 'static {
    /// Connects to `instance`. Done when the other side has shown that it is alive and speaks the
    /// protocol. The caller bounds the time and cancels by dropping.
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>>;
}

/// An established connection.
pub struct Connection {
    /// Carries calls.
    pub transport: Box<dyn Transport>,
    /// Must be polled for the connection to work; ends when no new call can go through it, with
    /// the reason if it broke. Calls in flight may still finish afterwards.
    pub driver: BoxFuture<'static, Result<(), BoxError>>,
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
    /// Sends one request. The URI holds the path only. Dropping the future cancels the call.
    fn send(
        &self,
        request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>>;

    /// Whether the connection is known to take no more calls.
    fn is_closed(&self) -> bool;

    /// How many calls the other side takes at a time; more wait their turn on this side. Default:
    /// any number. Asked only while very many are on their way.
    fn capacity(&self) -> usize {
        usize::MAX
    }
}

/// A call that got no response.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct SendError {
    /// The transport's own error.
    pub source: BoxError,
    /// Certain that no server has begun to work on it: it may be sent again whatever it does.
    pub never_processed: bool,
}

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Refused, unreachable, no such host, or broken before the first byte.
    #[error("cannot connect")]
    Connect(#[source] BoxError),
    /// The other side speaks something else, or nothing the TLS settings accept.
    #[error("cannot talk to it")]
    Handshake(#[source] BoxError),
    /// No sign of life in time.
    #[error("no connection within {0:?}")]
    Timeout(std::time::Duration),
}
