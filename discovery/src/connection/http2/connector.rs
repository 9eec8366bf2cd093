//! The byte stream under an HTTP/2 connection: TCP, or a stream that the application makes.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};

use crate::{
    BoxError,
    connection::descriptors::{Descriptors, Taken},
    instance::Instance,
};

/// A byte stream of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Opened = BoxFuture<'static, Result<Box<dyn Stream>, BoxError>>;

/// The application's function that makes byte streams.
#[derive(Clone)]
pub(super) struct Connector(Arc<dyn Fn(&Instance) -> Opened + Send + Sync>);

impl Connector {
    pub(super) fn new<F, R, S, E>(connector: F) -> Self
    where
        F: Fn(&Instance) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S, E>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        E: Into<BoxError>,
    {
        Self(Arc::new(move |instance| {
            let stream = connector(instance);
            async move {
                let stream = stream.await.map_err(Into::into)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            }
            .boxed()
        }))
    }

    pub(super) fn open(&self, instance: &Instance) -> Opened {
        (self.0)(instance)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// Connects by TCP, with these probes of the kernel (see `Http2::with_tcp_keep_alive`).
///
/// # Errors
///
/// The system's, and where too few file descriptors would be left for other uses.
pub(super) async fn tcp(
    address: SocketAddr,
    keep_alive: Option<Duration>,
    descriptors: &Descriptors,
) -> io::Result<(TcpStream, Taken)> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let taken = descriptors.take(&socket)?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    if let Some(idle) = keep_alive {
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
    Ok((stream, taken))
}
