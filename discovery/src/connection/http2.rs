//! The default factory: HTTP/2 over TCP, by h2.
//!
//! tonic's own channel hides whether it is connected and whether a failed call was ever sent; both
//! decide here what is picked and what may be repeated. So this factory takes h2's connection as it
//! is, which also spares the queues, the task and the task switches that a call takes there.
//!
//! A connection counts as made when the server's first frame has come, as in gRPC: a process that
//! hangs still lets its kernel accept connections.

mod body_sender;
mod driver;
mod keep_alive;
mod preface;
mod transport;

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::client::Builder;
use http::uri::{Authority, Scheme};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
};

use self::{
    driver::Driver,
    keep_alive::{KeepAlive, LastRead},
    preface::PrefaceStream,
    transport::Http2Transport,
};
use super::{ConnectError, Connection, Factory};
use crate::{BoxError, instance::Instance};

/// h2's own defaults suit single small calls; gRPC's windows suit both. The limits are hyper's.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MOST_HEADERS: u32 = 16 << 10;
const MOST_BUFFERED: usize = 1 << 20;

/// What a server that begins with something else is told to be.
const FOREIGN: &str = "the answer is not HTTP/2; does the server speak TLS, or HTTP/1 only?";

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

    /// Shakes hands and waits for the server's first frame.
    async fn establish<S>(
        &self,
        stream: S,
        scheme: Scheme,
        authority: Authority,
    ) -> Result<Connection, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = |error: BoxError| ConnectError::Handshake(error);
        let last_read = self.keep_alive.map(|_| Arc::new(LastRead::default()));
        let (stream, mut greeted) = PrefaceStream::of(stream, last_read.clone());
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MOST_HEADERS)
            .max_send_buffer_size(MOST_BUFFERED)
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
            keep_alive,
        };
        tokio::select! {
            biased;
            preface = &mut greeted => match preface {
                Ok(true) => {}
                Ok(false) => return Err(handshake(FOREIGN.into())),
                Err(_) => return Err(handshake("closed before the first frame".into())),
            },
            ended = &mut driver => return Err(handshake(match ended {
                // The bytes that ended it say more than what h2 makes of them.
                Err(_) if greeted.try_recv() == Ok(false) => FOREIGN.into(),
                Ok(()) => "closed before the first frame".into(),
                Err(error) => error,
            })),
        }
        let transport = Http2Transport {
            sender,
            scheme,
            authority,
            closed,
            _open: open,
        };
        Ok(Connection::new(transport, driver))
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
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                let stream = tls.handshake(stream, instance).await?;
                return self.establish(stream, Scheme::HTTPS, authority).await;
            }
            self.establish(stream, Scheme::HTTP, authority).await
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

#[cfg(test)]
mod tests;
