//! Serves HTTP on a listener until told to stop, then finishes what was accepted.
//!
//! One loop for gRPC and for HTTP, in place of tonic's and axum's own: both would have to be bounded
//! in their shutdown from outside, tonic's answers a deadline with CANCELLED, and axum's sets no time
//! limit for a request's headers.

use std::{error::Error, future::Future, io, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{first_byte::FirstByte, requests::Requests};

/// A client must have sent the first byte within this time, and a request's headers within this time
/// from there.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent HTTP/2 connection is pinged after this long, and closed when nothing comes back.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// After a failed accept (no file descriptors, most likely) the loop rests this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Which versions of HTTP a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 only, from the first byte on: what gRPC clients speak.
    Grpc,
    /// HTTP/1.1, or HTTP/2 where a client begins with it.
    Http,
}

/// Opens a listener; port 0 takes any free one.
///
/// # Errors
///
/// When the address is taken or not this machine's, with what was tried.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another port with {flag}"))
}

/// Serves until `stop` is done, then takes no new connections, lets the requests that were accepted
/// finish, and returns when they have or `drain` is over. Connections that carry no request are closed;
/// one whose client does not answer is waited for as well, and is no error.
///
/// # Errors
///
/// When requests were still unfinished at the end of `drain`.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    protocol: Protocol,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> anyhow::Result<()>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE);
    if protocol == Protocol::Grpc {
        builder = builder.http2_only();
    }
    let graceful = GracefulShutdown::new();
    let requests = Requests::default();
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    rest_after(&error).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        // Small answers must not wait for more; a socket that refuses has gone already.
        let _gone = stream.set_nodelay(true);
        let counter = requests.clone();
        let service = TowerToHyperService::new(service.clone());
        let connection = builder
            .serve_connection(
                TokioIo::new(FirstByte::within(HEADER_TIMEOUT, stream)),
                service_fn(move |request| {
                    let unfinished = counter.begin();
                    let answer = service.call(request);
                    async move {
                        Ok::<_, S::Error>(answer.await?.map(|body| unfinished.until_sent(body)))
                    }
                }),
            )
            .into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                debug!(error = &*error, "connection ended");
            }
        });
    }
    drop(listener);
    if timeout(drain, graceful.shutdown()).await.is_ok() {
        return Ok(());
    }
    // A client that hangs, or is gone without a word, never says that it has nothing more to send.
    match requests.unfinished() {
        0 => {
            debug!("left connections behind that carry no request");
            Ok(())
        }
        unfinished => anyhow::bail!(
            "requests still unfinished after {drain:?}: {unfinished}; --drain gives them more time"
        ),
    }
}

async fn rest_after(error: &io::Error) {
    let client_gone = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    );
    if !client_gone {
        warn!(%error, "cannot accept a connection");
        sleep(ACCEPT_PAUSE).await;
    }
}
