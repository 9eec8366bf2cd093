//! The default factory: HTTP/2 over TCP, by hyper.
//!
//! tonic's own channel hides whether it is connected and whether a failed call was ever sent; both
//! decide here what is picked and what may be repeated. So this factory takes hyper's connection as
//! it is, which also spares a queue and a task switch per call.
//!
//! A connection counts as made when the server's first frame has come, as in gRPC: a process that
//! hangs still lets its kernel accept connections.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{
    Request, Response, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

use super::{ConnectError, Connection, Factory, SendError, Transport, TransportBody};
use crate::{BoxError, instance::Instance, retry::body::RequestBody};

/// HTTP/2 over TCP, one connection per endpoint; without TLS ("prior knowledge") unless told.
#[derive(Clone, Debug)]
pub struct Http2 {
    keep_alive: Option<(Duration, Duration)>,
    tcp_keep_alive: Option<Duration>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
struct Tls {
    config: Arc<rustls::ClientConfig>,
    name: Option<rustls::pki_types::ServerName<'static>>,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            keep_alive: None,
            tcp_keep_alive: Some(Duration::from_secs(10)),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Http2 {
    /// Sends an HTTP/2 ping after `interval` without anything received, idle or not, and gives the
    /// connection up when `timeout` passes without an answer. Default: off.
    ///
    /// It finds a peer that hangs and a network that eats packets. Before turning it on, know the
    /// servers: grpc-go by default closes connections that are pinged more than every 5 minutes.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive = Some((interval, timeout));
        self
    }

    /// Lets the kernel probe a silent connection after `idle`, then five times within another
    /// `idle`, and gives up sent bytes that stay unacknowledged for twice that long. Default: 10 s.
    ///
    /// It finds a machine that vanished, at no cost to the server process.
    #[must_use]
    pub fn tcp_keep_alive(mut self, idle: Option<Duration>) -> Self {
        self.tcp_keep_alive = idle;
        self
    }

    /// Speaks TLS with this configuration; its ALPN list is replaced by HTTP/2. Certificates are
    /// checked against `name`, or against each instance's own host where it is `None`: with a
    /// registry that knows IP addresses only, name the service. Default: no TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(
        mut self,
        mut config: rustls::ClientConfig,
        name: Option<rustls::pki_types::ServerName<'static>>,
    ) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        self.tls = Some(Tls {
            config: Arc::new(config),
            name,
        });
        self
    }

    async fn open(&self, instance: &Instance) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((instance.host.as_str(), instance.port)).await?;
        stream.set_nodelay(true)?;
        if let Some(idle) = self.tcp_keep_alive {
            let probes = 5;
            let keep_alive = TcpKeepalive::new()
                .with_time(idle)
                .with_interval((idle / probes).max(Duration::from_secs(1)));
            #[cfg(not(target_os = "windows"))]
            let keep_alive = keep_alive.with_retries(probes);
            let socket = SockRef::from(&stream);
            socket.set_tcp_keepalive(&keep_alive)?;
            #[cfg(target_os = "linux")]
            socket.set_tcp_user_timeout(Some(idle * 2))?;
        }
        Ok(stream)
    }
}

impl Factory for Http2 {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(async move {
            let authority = instance
                .authority()
                .parse::<Authority>()
                .map_err(|error| ConnectError::Connect(error.into()))?;
            let stream = self
                .open(instance)
                .await
                .map_err(|error| ConnectError::Connect(error.into()))?;
            let mut builder = Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                // tonic's and hyper's own defaults suit single small calls; gRPC's suit both.
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20);
            if let Some((interval, timeout)) = self.keep_alive {
                builder
                    .keep_alive_interval(interval)
                    .keep_alive_timeout(timeout)
                    .keep_alive_while_idle(true);
            }
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                let stream = tls.handshake(stream, instance).await?;
                return establish(&builder, stream, Scheme::HTTPS, authority).await;
            }
            establish(&builder, stream, Scheme::HTTP, authority).await
        })
    }
}

#[cfg(feature = "tls")]
impl Tls {
    async fn handshake(
        &self,
        stream: TcpStream,
        instance: &Instance,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => rustls::pki_types::ServerName::try_from(instance.host.clone())
                .map_err(|error| ConnectError::Handshake(error.into()))?,
        };
        tokio_rustls::TlsConnector::from(Arc::clone(&self.config))
            .connect(name, stream)
            .await
            .map_err(|error| ConnectError::Handshake(error.into()))
    }
}

/// Shakes hands and waits for the server's first frame.
async fn establish<S>(
    builder: &Builder<TokioExecutor>,
    stream: S,
    scheme: Scheme,
    authority: Authority,
) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (greeted_tx, greeted) = oneshot::channel();
    let stream = Greeting {
        stream,
        greeted: Some(greeted_tx),
        header: [0; FRAME_TYPE + 1],
        seen: 0,
    };
    let handshake = |error: BoxError| ConnectError::Handshake(error);
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| handshake(error.into()))?;
    let mut driver: BoxFuture<'static, Result<(), BoxError>> =
        Box::pin(async { connection.await.map_err(BoxError::from) });
    tokio::select! {
        biased;
        greeting = greeted => match greeting {
            Ok(true) => {}
            Ok(false) => return Err(handshake("the answer is not HTTP/2".into())),
            Err(_) => return Err(handshake("closed before the first frame".into())),
        },
        ended = &mut driver => return Err(handshake(match ended {
            Ok(()) => "closed before the first frame".into(),
            Err(error) => error,
        })),
    }
    Ok(Connection {
        transport: Box::new(Http2Transport {
            sender,
            scheme,
            authority,
            closed: Arc::default(),
        }),
        driver,
    })
}

struct Http2Transport {
    sender: SendRequest<RequestBody>,
    scheme: Scheme,
    authority: Authority,
    closed: Arc<AtomicBool>,
}

impl Transport for Http2Transport {
    fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        let path = request
            .uri()
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(path);
        // All three parts are there and well-formed, which is all that `from_parts` asks for.
        if let Ok(uri) = Uri::from_parts(uri) {
            *request.uri_mut() = uri;
        }
        let mut sender = self.sender.clone();
        let closed = Arc::clone(&self.closed);
        Box::pin(async move {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
                }
                Err(mut failed) => {
                    let unsent = failed.take_message().is_some();
                    let error = failed.into_error();
                    let refusal = Refusal::of(&error);
                    if unsent || refusal == Some(Refusal::GoAway) {
                        // Told before the driver is, so that the next pick knows.
                        closed.store(true, Ordering::Relaxed);
                    }
                    Err(SendError {
                        source: error.into(),
                        never_processed: unsent || refusal.is_some(),
                    })
                }
            }
        })
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.sender.is_closed()
    }
}

/// The ways in which HTTP/2 says that a request was not processed (RFC 9113, 6.8 and 8.7).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The server is going away and the stream is one it did not take.
    GoAway,
    /// `REFUSED_STREAM`.
    Stream,
}

impl Refusal {
    fn of(error: &hyper::Error) -> Option<Self> {
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            if let Some(h2) = error.downcast_ref::<h2::Error>() {
                // h2 gives this error only to streams above the last one the server names.
                if h2.is_go_away() && h2.is_remote() {
                    return Some(Self::GoAway);
                }
                if h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM) {
                    return Some(Self::Stream);
                }
            }
            source = error.source();
        }
        None
    }
}

/// Where a frame's header says of what type it is, and the type a server must begin with.
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;

/// A stream that tells when the server's first frame has begun to come, and whether it is one.
struct Greeting<S> {
    stream: S,
    greeted: Option<oneshot::Sender<bool>>,
    header: [u8; FRAME_TYPE + 1],
    seen: usize,
}

impl<S> Greeting<S> {
    fn look_at(&mut self, read: &[u8]) {
        let wanted = self.header.len() - self.seen;
        let part = &read[..wanted.min(read.len())];
        self.header[self.seen..self.seen + part.len()].copy_from_slice(part);
        self.seen += part.len();
        if self.seen == self.header.len()
            && let Some(greeted) = self.greeted.take()
        {
            // Nobody listens any more when the attempt was given up.
            let _given_up = greeted.send(self.header[FRAME_TYPE] == SETTINGS);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.greeted.is_some() && polled.is_ready() {
            self.look_at(&buf.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
