//! Serves HTTP on a listener until told to stop, then finishes what was accepted.
//!
//! One loop for gRPC and for HTTP, in place of tonic's and axum's own: both would have to be bounded
//! in their shutdown from outside, tonic's answers a deadline with CANCELLED, and axum's sets no time
//! limit for a request's headers.

use std::{
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, warn};

use super::{first_byte::FirstByte, requests::Requests};

/// A client must have sent the first byte within this time.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// An HTTP/1 connection may wait this long for its next request, headers included. Longer than Go's
/// clients keep an idle one (90 s), and nginx and load balancers (60 s): the client is to close first,
/// for a request that meets a closing connection is lost.
const IDLE: Duration = Duration::from_secs(120);
/// At the end, connections are still read from for this part of the drain, for what was on its way.
const LAST_READ: u32 = 8;
/// No last read takes longer.
const LAST_READ_MOST: Duration = Duration::from_millis(250);
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

/// Splits a drain time in two: in the first part a server that has been told to stop says so to health
/// checks and takes calls all the same, for those who have not heard; in the second it finishes.
#[must_use]
pub fn drain_parts(drain: Duration) -> (Duration, Duration) {
    let learning = drain / 4;
    (learning, drain.saturating_sub(learning))
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
/// finish, and returns when they have or `drain` is over. Accepted is what the kernel has: connections
/// in its queue are taken, and requests on their way are read, before connections that carry none are
/// closed. One whose client does not answer is waited for as well, and is no error.
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
    let connections = Connections {
        builder: builder(protocol),
        graceful: GracefulShutdown::new(),
        requests: Requests::default(),
        ending: Arc::default(),
        service,
    };
    connections.accept_until(&listener, stop).await;
    let by = Instant::now() + drain;
    connections.ending.store(true, Ordering::Relaxed);
    // From here on the kernel queues none; those it has queued have been promised an answer.
    let _refused = SockRef::from(&listener).listen(0);
    let last_read = sleep((drain / LAST_READ).min(LAST_READ_MOST));
    connections.accept_until(&listener, last_read).await;
    drop(listener);
    let Connections {
        graceful, requests, ..
    } = connections;
    if timeout_at(by, graceful.shutdown()).await.is_ok() {
        return Ok(());
    }
    // A client that hangs, or is gone without a word, never says that it has nothing more to send.
    match requests.unfinished() {
        0 => {
            debug!("left connections behind that carry no request");
            Ok(())
        }
        unfinished => anyhow::bail!(
            "requests still unfinished at the end of the drain: {unfinished}; --drain gives them more time"
        ),
    }
}

fn builder(protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        // A client has one connection for all its calls; a limit would let the next ones wait where
        // nobody sees them. tonic and the gRPC servers of other languages have none either.
        .max_concurrent_streams(None);
    match protocol {
        Protocol::Grpc => builder.http2_only(),
        Protocol::Http => builder,
    }
}

/// What all connections of a server share.
struct Connections<S> {
    builder: auto::Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    requests: Requests,
    /// Whether answers ask HTTP/1 clients to close their connections.
    ending: Arc<AtomicBool>,
    service: S,
}

impl<S, B> Connections<S>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Takes connections until `end` is done.
    async fn accept_until(&self, listener: &TcpListener, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _peer)) => self.carry(stream),
                    Err(error) => rest_after(&error).await,
                },
                () = &mut end => return,
            }
        }
    }

    /// Serves a connection in the background.
    fn carry(&self, stream: TcpStream) {
        // Small answers must not wait for more; a socket that refuses has gone already.
        let _gone = stream.set_nodelay(true);
        let (counter, ending) = (self.requests.clone(), Arc::clone(&self.ending));
        let service = TowerToHyperService::new(self.service.clone());
        let answer = move |request: Request<Incoming>| {
            let unfinished = counter.begin();
            let closable = request.version() < Version::HTTP_2;
            let ending = Arc::clone(&ending);
            let answer = service.call(request);
            async move {
                let mut answer = answer.await?.map(|body| unfinished.until_sent(body));
                if closable && ending.load(Ordering::Relaxed) {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, S::Error>(answer)
            }
        };
        let connection = self
            .builder
            .serve_connection(
                TokioIo::new(FirstByte::within(FIRST_BYTE, stream)),
                service_fn(answer),
            )
            .into_owned();
        let watched = self.graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                debug!(error = &*error, "connection ended");
            }
        });
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
