//! The default factory: HTTP/2 over TCP, on the `h2` crate.
//!
//! A connection counts as made when the server's first frame has arrived, as in gRPC: the kernel
//! accepts connections for a process that hangs. A host name is resolved for every attempt, and of
//! several addresses the first to answer is used (RFC 8305). Connections leave a part of the process's
//! file descriptors to other uses.

mod body_sender;
mod connector;
mod driver;
mod frames;
mod happy_eyeballs;
mod keep_alive;
mod preface;
mod scaling;
mod transport;

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::client::Builder;
use http::{
    Uri,
    uri::{Authority, Scheme},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

use self::{
    connector::{Connector, tcp},
    driver::Driver,
    happy_eyeballs::{race, resolve},
    keep_alive::{KeepAlive, LastRead},
    preface::{PrefaceStream, Received},
    scaling::scaled,
    transport::Http2Transport,
};
#[cfg(feature = "tls")]
use super::tls::{RotatingTls, Tls, TlsError, explain};
use super::{
    ConnectError, Connection, Factory,
    descriptors::{Descriptors, Taken},
    origin::Origin,
};
use crate::{BoxError, instance::Instance};

/// h2's defaults suit single small calls; gRPC's windows suit both. The limits are hyper's.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MAX_HEADER_LIST: u32 = 16 << 10;
const MAX_SEND_BUFFER: usize = 1 << 20;
/// Frames for streams that this side has forgotten, over the life of a connection; h2 closes it then. Late
/// answers are such frames, so h2's limit of 1 024 is reached in minutes where many calls are cancelled.
const MAX_LATE_FRAMES: usize = 1 << 16;

const NOT_HTTP2: &str = "the answer is not HTTP/2; does the server expect TLS, or HTTP/1?";
const CLOSED_EARLY: &str = "closed before the first frame";
const WENT_AWAY: &str = "the server ended the connection at once";

/// HTTP/2 over TCP, one connection per endpoint. Default: without TLS ("prior knowledge").
#[derive(Clone, Debug)]
pub struct Http2 {
    origin: Uri,
    keep_alive: Option<(Duration, Duration)>,
    tcp_keep_alive: Option<Duration>,
    connector: Option<Connector>,
    max_connections: usize,
    descriptors: Descriptors,
    #[cfg(feature = "tls")]
    tls: Option<RotatingTls>,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            origin: Uri::default(),
            keep_alive: None,
            tcp_keep_alive: Some(Duration::from_secs(10)),
            connector: None,
            max_connections: 1,
            descriptors: Descriptors::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Http2 {
    /// A factory with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `:scheme` and `:authority` of the requests whose URI has no authority of its own. A
    /// part that `origin` lacks keeps its default. Default: the scheme of the connection, and the
    /// instance's own address.
    ///
    /// It does not change the address of the connection or the name that TLS verifies.
    #[must_use]
    pub fn with_origin(mut self, origin: Uri) -> Self {
        self.origin = origin;
        self
    }

    /// Sends an HTTP/2 ping when nothing was received for `interval`, and closes the connection if
    /// nothing is received within `timeout` after it. Default: off.
    ///
    /// This detects a server that hangs and a network that drops packets. Check the servers'
    /// limits first: grpc-go closes connections that are pinged more often than every 5 minutes.
    #[must_use]
    pub fn with_keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive = Some((interval, timeout));
        self
    }

    /// As [`with_keep_alive`](Self::with_keep_alive), or off.
    #[cfg(feature = "service-config")]
    pub(crate) fn with_keep_alives(mut self, times: Option<(Duration, Duration)>) -> Self {
        self.keep_alive = times;
        self
    }

    pub(crate) fn keep_alive(&self) -> Option<(Duration, Duration)> {
        self.keep_alive
    }

    pub(crate) fn tcp_keep_alive(&self) -> Option<Duration> {
        self.tcp_keep_alive
    }

    /// TCP keep-alive: the kernel probes a silent connection after `idle`, then five times within
    /// another `idle`. It also closes a connection whose sent bytes stay unacknowledged for twice
    /// `idle` (Linux). Default: 10 s.
    ///
    /// This detects a machine that failed, at no cost to the server process. Streams of
    /// [`with_connector`](Self::with_connector) are left as they are.
    #[must_use]
    pub fn with_tcp_keep_alive(mut self, idle: Option<Duration>) -> Self {
        self.tcp_keep_alive = idle;
        self
    }

    /// Connects over the byte streams of this function in place of TCP: a Unix socket, a tunnel,
    /// a pipe in this process. TLS, if set, runs on top. Default: TCP.
    ///
    /// ```
    /// use discovery::connection::Http2;
    /// use tokio::net::UnixStream;
    ///
    /// // The registry lists each instance under the name of its socket.
    /// let http2 = Http2::new().with_connector(|instance| {
    ///     UnixStream::connect(format!("/run/trim/{}.sock", instance.id))
    /// });
    /// ```
    #[must_use]
    pub fn with_connector<F, R, S, E>(mut self, connector: F) -> Self
    where
        F: Fn(&Instance) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S, E>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        E: Into<BoxError>,
    {
        self.connector = Some(Connector::new(connector));
        self
    }

    /// Makes up to this many connections to an instance (gRFC A105). Another one is made when the
    /// calls under way use up the server's limit of concurrent streams on all that there are.
    /// Default: 1, so that more calls go to other instances or wait.
    #[must_use]
    pub fn with_max_connections(mut self, connections: NonZeroUsize) -> Self {
        self.max_connections = connections.get();
        self
    }

    /// Uses TLS with these settings. Default: no TLS.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be used.
    #[cfg(feature = "tls")]
    pub fn with_tls(self, tls: Tls) -> Result<Self, TlsError> {
        Ok(self.with_rotating_tls(&RotatingTls::new(tls)?))
    }

    /// Uses TLS with settings that can be replaced later. Default: no TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_rotating_tls(mut self, tls: &RotatingTls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// The origin of the requests to this instance.
    pub(in crate::connection) fn origin(
        &self,
        scheme: Scheme,
        instance: &Instance,
    ) -> Result<Origin, ConnectError> {
        Ok(Origin {
            scheme: self.origin.scheme().cloned().unwrap_or(scheme),
            authority: match self.origin.authority() {
                Some(authority) => authority.clone(),
                None => instance
                    .authority()
                    .parse::<Authority>()
                    .map_err(|error| ConnectError::Connect(error.into()))?,
            },
        })
    }

    /// Opens a byte stream and performs this handshake on it. Of several addresses, the first on which it
    /// succeeds is used.
    pub(in crate::connection) async fn open<H: Handshake>(
        &self,
        instance: &Instance,
        handshake: &H,
    ) -> Result<H::Made, ConnectError> {
        if let Some(connector) = &self.connector {
            let stream = connector.open(instance).await;
            return handshake
                .over(stream.map_err(ConnectError::stream)?, None, instance)
                .await;
        }
        self.to_any(resolve(instance).await?, instance, handshake)
            .await
    }

    /// Connects to the first of these addresses that answers.
    async fn to_any<H: Handshake>(
        &self,
        addresses: Vec<SocketAddr>,
        instance: &Instance,
        handshake: &H,
    ) -> Result<H::Made, ConnectError> {
        race(addresses, |address| async move {
            let (stream, taken) = tcp(address, self.tcp_keep_alive, &self.descriptors)
                .await
                .map_err(ConnectError::stream)?;
            handshake.over(stream, Some(taken), instance).await
        })
        .await
    }

    /// Performs the HTTP/2 handshake and waits for the server's first frame.
    pub(in crate::connection) async fn establish<S>(
        &self,
        stream: S,
        taken: Option<Taken>,
        origin: Origin,
    ) -> Result<Connection, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = |error: BoxError| ConnectError::Handshake(error);
        let last_read = self.keep_alive.map(|_| Arc::new(LastRead::default()));
        let received = Arc::<Received>::default();
        let (stream, mut preface) =
            PrefaceStream::of(stream, Arc::clone(&received), last_read.clone());
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buffer_size(MAX_SEND_BUFFER)
            .max_local_error_reset_streams(Some(MAX_LATE_FRAMES))
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|error| handshake(error.into()))?;
        let keep_alive = match (self.keep_alive, last_read, connection.ping_pong()) {
            (Some(times), Some(last_read), Some(pings)) => {
                Some(KeepAlive::new(times, last_read, pings))
            }
            _ => None,
        };
        let (open, dropped) = oneshot::channel();
        let closed = Arc::new(AtomicBool::new(false));
        let mut driver = Driver {
            connection: Some(connection),
            probe: Some(sender.clone()),
            open: dropped,
            closed: Arc::clone(&closed),
            received: Arc::clone(&received),
            keep_alive,
            _taken: taken,
            deferred: false,
        };
        tokio::select! {
            biased;
            first = &mut preface => match first {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Err(handshake(NOT_HTTP2.into())),
                Ok(Err(error)) => return Err(handshake(error.into())),
                Err(_) => return Err(handshake(CLOSED_EARLY.into())),
            },
            ended = &mut driver => return Err(handshake(match (ended, preface.try_recv()) {
                // The bytes received say more than h2's error.
                (Err(_), Ok(Ok(false))) => NOT_HTTP2.into(),
                (Ok(()), Ok(Ok(true))) => WENT_AWAY.into(),
                (_, Ok(Err(error))) => error.into(),
                (Ok(()), _) => CLOSED_EARLY.into(),
                (Err(error), _) => error,
            })),
        }
        let transport = Http2Transport {
            sender: Mutex::new(sender),
            origin,
            closed,
            received,
            _open: open,
        };
        Ok(Connection::new(transport, driver))
    }
}

/// What follows on an open byte stream of any kind.
pub(in crate::connection) trait Handshake: Sync {
    type Made: Send;

    /// Makes a connection of the stream. `taken` counts its file descriptor.
    fn over<'a, S>(
        &'a self,
        stream: S,
        taken: Option<Taken>,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Self::Made, ConnectError>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static;
}

impl Handshake for Http2 {
    type Made = Connection;

    /// TLS, if set, and HTTP/2.
    fn over<'a, S>(
        &'a self,
        stream: S,
        taken: Option<Taken>,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Box::pin(async move {
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                let origin = self.origin(Scheme::HTTPS, instance)?;
                let stream = tls.handshake(stream, instance).await?;
                let connection = self.establish(stream, taken, origin).await;
                return connection.map_err(explain::first_bytes);
            }
            let origin = self.origin(Scheme::HTTP, instance)?;
            self.establish(stream, taken, origin).await
        })
    }
}

impl Factory for Http2 {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(async move {
            let connection = self.open(instance, self).await?;
            Ok(if self.max_connections > 1 {
                scaled(self, instance, connection)
            } else {
                connection
            })
        })
    }
}

#[cfg(test)]
mod tests;
