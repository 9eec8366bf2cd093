//! Connections for plain HTTP: HTTP/1.1 or HTTP/2, as TLS agrees on it or as the application knows.

use std::{num::NonZeroUsize, time::Duration};

use futures_util::future::BoxFuture;
use http::uri::Scheme;
use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(feature = "tls")]
use super::tls::{RotatingTls, Tls, TlsError, explain};
use super::{
    ConnectError, Connection, Factory,
    descriptors::Taken,
    http1::{Bounds, Link, pooled},
    http2::{Handshake, Http2},
    origin::Origin,
};
use crate::{BoxError, instance::Instance};

/// The versions of HTTP that a connection may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Versions {
    /// HTTP/1.1, or HTTP/2 where TLS agrees on it.
    Any,
    Http1,
    Http2,
}

impl Versions {
    /// What the client offers by ALPN (RFC 7301), the preferred one first.
    #[cfg(feature = "tls")]
    fn protocols(self) -> &'static [&'static [u8]] {
        match self {
            Self::Any => &[b"h2", b"http/1.1"],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
        }
    }
}

/// Makes the connections of an HTTP channel; the default factory of
/// [`http::ChannelBuilder`](crate::http::ChannelBuilder).
///
/// - Without TLS they are HTTP/1.1, or HTTP/2 [by prior knowledge](Self::with_http2_only).
/// - With TLS the server chooses one of the two (ALPN, RFC 7301).
///
/// An instance with HTTP/2 has one connection for all requests. One with HTTP/1.1 has a pool of them, as
/// each carries one request at a time.
///
/// ```
/// use std::{num::NonZeroUsize, time::Duration};
/// use discovery::http::Connections;
///
/// let connections = Connections::new()
///     .with_max_connections(NonZeroUsize::new(20).ok_or("zero")?)
///     .with_idle_timeout(Duration::from_secs(4));
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Debug)]
pub struct Connections {
    /// Opens the byte streams, and makes the connections that are HTTP/2.
    http2: Http2,
    versions: Versions,
    bounds: Bounds,
    #[cfg(feature = "tls")]
    tls: Option<RotatingTls>,
}

/// Connections to one instance at a time are at most this many by default: browsers have 6, servers accept
/// hundreds.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(100).expect("not zero");

impl Default for Connections {
    fn default() -> Self {
        Self {
            http2: Http2::default(),
            versions: Versions::Any,
            bounds: Bounds {
                connections: CONNECTIONS,
                idle: Duration::from_secs(30),
            },
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Connections {
    /// A factory with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Maximum number of HTTP/1.1 connections to one instance, which is the number of requests that it
    /// receives at a time. Further requests go to other instances, and wait for their turn when all are
    /// as full. Default: 100.
    #[must_use]
    pub fn with_max_connections(mut self, connections: NonZeroUsize) -> Self {
        self.bounds.connections = connections;
        self
    }

    /// Time after which an unused HTTP/1.1 connection is closed. A server closes such connections too; a
    /// shorter time here saves the requests that meet it. Default: 30 s.
    #[must_use]
    pub fn with_idle_timeout(mut self, idle: Duration) -> Self {
        self.bounds.idle = idle;
        self
    }

    /// HTTP/2 only: without TLS by prior knowledge (RFC 9113, section 3.3).
    #[must_use]
    pub fn with_http2_only(self) -> Self {
        self.with_versions(Versions::Http2)
    }

    /// HTTP/1.1 only, also with TLS.
    #[must_use]
    pub fn with_http1_only(self) -> Self {
        self.with_versions(Versions::Http1)
    }

    /// The settings of TCP and HTTP/2.
    pub(crate) fn http2(&self) -> &Http2 {
        &self.http2
    }

    #[cfg(feature = "service-config")]
    pub(crate) fn with_http2(mut self, http2: Http2) -> Self {
        self.http2 = http2;
        self
    }

    fn with_versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Sends an HTTP/2 ping on a silent connection; see [`Http2::with_keep_alive`]. Default: off.
    #[must_use]
    pub fn with_http2_keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.http2 = self.http2.with_keep_alive(interval, timeout);
        self
    }

    /// TCP keep-alive; see [`Http2::with_tcp_keep_alive`]. Default: 10 s.
    #[must_use]
    pub fn with_tcp_keep_alive(mut self, idle: Option<Duration>) -> Self {
        self.http2 = self.http2.with_tcp_keep_alive(idle);
        self
    }

    /// Connects over the byte streams of this function in place of TCP; see [`Http2::with_connector`].
    #[must_use]
    pub fn with_connector<F, R, S, E>(mut self, connector: F) -> Self
    where
        F: Fn(&Instance) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S, E>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        E: Into<BoxError>,
    {
        self.http2 = self.http2.with_connector(connector);
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

    /// Uses TLS with settings that can be replaced while the channel runs; see
    /// [`Http2::with_rotating_tls`]. Default: no TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_rotating_tls(mut self, tls: &RotatingTls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// Scheme and authority of requests that have none.
    fn origin(&self, instance: &Instance) -> Result<Origin, ConnectError> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return self.http2.origin(Scheme::HTTPS, instance);
        }
        self.http2.origin(Scheme::HTTP, instance)
    }

    /// Makes the connection of a byte stream on which TLS, if set, is done.
    async fn establish<S>(
        &self,
        stream: S,
        taken: Option<Taken>,
        instance: &Instance,
        is_http2: bool,
    ) -> Result<Made, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if is_http2 {
            let origin = self.origin(instance)?;
            let connection = self.http2.establish(stream, taken, origin).await?;
            return Ok(Made::Http2(connection));
        }
        Ok(Made::Http1(Link::over(stream, taken).await?))
    }
}

/// A connection, by its version.
pub(super) enum Made {
    Http1(Link),
    Http2(Connection),
}

impl Handshake for Connections {
    type Made = Made;

    fn over<'a, S>(
        &'a self,
        stream: S,
        taken: Option<Taken>,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Made, ConnectError>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Box::pin(async move {
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                let offered = self.versions.protocols();
                let stream = tls.handshake_offering(stream, instance, offered).await?;
                let agreed = stream.get_ref().1.alpn_protocol();
                let is_http2 = agreed == Some(b"h2") || self.versions == Versions::Http2;
                let made = self.establish(stream, taken, instance, is_http2).await;
                return made.map_err(explain::first_bytes);
            }
            let is_http2 = self.versions == Versions::Http2;
            self.establish(stream, taken, instance, is_http2).await
        })
    }
}

impl Factory for Connections {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(async move {
            let first = match self.http2.open(instance, self).await? {
                Made::Http2(connection) => return Ok(connection),
                Made::Http1(link) => link,
            };
            let (factory, instance) = (self.clone(), instance.clone());
            let origin = self.origin(&instance)?;
            let dial = move || -> BoxFuture<'static, _> {
                let (factory, instance) = (factory.clone(), instance.clone());
                Box::pin(async move {
                    match factory.http2.open(&instance, &factory).await? {
                        Made::Http1(link) => Ok(link),
                        // The next connection of the endpoint will be HTTP/2.
                        Made::Http2(_) => Err(ConnectError::Handshake(CHANGED.into())),
                    }
                })
            };
            Ok(pooled(first, Box::new(dial), origin, self.bounds))
        })
    }
}

const CHANGED: &str = "the server has changed from HTTP/1.1 to HTTP/2";
