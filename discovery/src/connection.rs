//! The connection of one endpoint, and the [`Factory`] that makes it.
//!
//! Go kit's `Factory` turns an instance into an endpoint and a closer. Here it gives a
//! [`Connection`]: a [`Transport`] that sends calls, and a future that drives the connection and
//! ends with it. The default factory is [`Http2`]. [`Http2::with_connector`] replaces its byte
//! stream, [`InProcess`](crate::InProcess) replaces the network in tests.
//!
//! # Why a connection layer of its own
//!
//! Balancing and retry depend on facts about a connection that `tonic::transport::Channel` hides.
//! hyper's HTTP/2 client shows some of them, at a higher cost per call. So [`Http2`] uses the `h2`
//! crate, on which both are built.
//!
//! | Fact | Needed for | tonic's channel | hyper's client | [`Http2`] |
//! |---|---|---|---|---|
//! | The state, without a call | picking ready instances only; reconnecting before a call comes | hidden; reconnects during a call | the connection's future ends | the [driver](Connection::driver) ends |
//! | The server's first frame | detecting a process that hangs: its kernel still accepts connections | not awaited | not awaited | ends [`Factory::connect`] |
//! | The server did not process the request | repeating any call, idempotent or not (gRPC A6) | hidden in the error's sources | in the error's source, which is h2's | [`SendError::never_processed`] |
//! | The limit of concurrent streams | using another instance in place of a queue | hidden | only on the connection's future | [`Transport::capacity`] |
//! | The request body was not read yet | repeating a call whose request is a stream | hidden: its buffer owns the body | visible | the body is polled only when the stream is open |
//!
//! # What a call costs
//!
//! Client CPU time per unary call through a channel to three servers, by [`Http2`] and by a
//! factory on hyper 1.12 with the same settings. Each figure is the median of five runs on a busy
//! machine with two cores. The ratio is taken between short rounds that alternate, so that it
//! depends little on other load; the times do.
//!
//! | Runtime, calls in flight | [`Http2`] | on hyper | ratio |
//! |---|---|---|---|
//! | one thread, 1 | 10.1 us | 14.3 us | 1.42 |
//! | one thread, 16 | 6.1 us | 8.2 us | 1.33 |
//! | one thread, 64 | 5.8 us | 8.0 us | 1.38 |
//! | two workers, 1 | 13.3 us | 21.6 us | 1.54 |
//! | two workers, 16 | 9.5 us | 11.6 us | 1.25 |
//! | two workers, 64 | 9.0 us | 11.4 us | 1.29 |
//!
//! hyper queues each request for its connection task, and spawns a task that awaits the response.
//! [`Http2`] opens the stream in the caller's task and awaits the response there. It spawns a task
//! only for a request body that is not complete when the call starts.
//!
//! To repeat the measurement, run `cargo bench -p discovery --bench call`. The column
//! `on hyper / discovery` is the ratio; `benches/hyper_factory` contains the other factory.

pub(crate) mod body;
mod descriptors;
#[cfg(feature = "http")]
mod http1;
pub mod http2;
#[cfg(feature = "http")]
pub(crate) mod negotiated;
pub(crate) mod origin;
#[cfg(feature = "tls")]
mod tls;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

pub use self::body::RequestBody;
use self::descriptors::is_shortage;
pub use self::http2::Http2;
#[cfg(feature = "tls")]
pub use self::tls::{RotatingTls, Tls, TlsError};
use crate::{BoxError, future::BoxFuture, instance::Instance};

/// Makes the connection of an endpoint.
///
/// The default is [`Http2`]. Implement it to observe or change connections, as here, or for a
/// transport that is not HTTP/2 over a byte stream.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use discovery::{
///     BoxFuture, Instance,
///     connection::{ConnectError, Connection, Factory, Http2},
/// };
///
/// /// Counts the attempts to connect.
/// #[derive(Default)]
/// struct Counting {
///     http2: Http2,
///     attempts: AtomicUsize,
/// }
///
/// impl Factory for Counting {
///     fn connect<'a>(
///         &'a self,
///         instance: &'a Instance,
///     ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
///         self.attempts.fetch_add(1, Ordering::Relaxed);
///         self.http2.connect(instance)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let refuse = |_: &Instance| async { Err::<tokio::net::TcpStream, _>("refused") };
/// let factory = Counting {
///     http2: Http2::new().with_connector(refuse),
///     ..Counting::default()
/// };
/// let error = factory.connect(&Instance::parse("a:1")?).await.unwrap_err();
/// assert!(matches!(error, ConnectError::Connect(_)));
/// assert_eq!(factory.attempts.into_inner(), 1);
/// # Ok(())
/// # }
/// ```
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
    /// with the reason if it broke. Calls in flight may still finish afterwards. A new connection is
    /// begun at once.
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

/// An extension of an attempt's request that may be executed twice.
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeatable;

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

    /// True if the server has answered a call on this connection. The orderly end of such a
    /// connection is not a failure, however short the connection's life was. Default: false; then a
    /// connection that lasts less than a second counts as a failed attempt to connect.
    fn has_answered(&self) -> bool {
        false
    }

    /// The number of calls that the server accepts at a time; more are queued on this side. Zero if the
    /// server has asked for no calls at present: it receives some only if all others are as full.
    /// Default: unlimited. A gRPC channel reads it only while many calls are in flight.
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
    /// This process or the machine has no file descriptor for the connection. The channel does not
    /// count it against the instance.
    #[error("no file descriptor for the connection")]
    NoDescriptor(#[source] BoxError),
}

impl ConnectError {
    /// A byte stream that could not be opened.
    pub(crate) fn stream(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        if is_shortage(&*error) {
            Self::NoDescriptor(error)
        } else {
            Self::Connect(error)
        }
    }

    /// True if there was no file descriptor, which says nothing about the instance.
    pub(crate) fn is_shortage(&self) -> bool {
        match self {
            Self::NoDescriptor(_) => true,
            Self::Connect(source) | Self::Handshake(source) => is_shortage(&**source),
            Self::Timeout(_) => false,
        }
    }
}
