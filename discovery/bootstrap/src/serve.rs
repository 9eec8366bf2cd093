//! Serves HTTP on one listener, for gRPC and plain HTTP alike.
//!
//! [`serve`] has four phases:
//!
//! 1. **Accept.** Until `stop`, each connection takes a slot of the connection limit and is served in
//!    a task of its own. At the limit, new connections wait in the kernel's queue.
//! 2. **Last read.** The kernel queues no more connections. Those in its queue are accepted, and
//!    requests on their way are read. Answers ask HTTP/1 clients to close their connections.
//! 3. **Finish.** The listener is closed. Idle connections close; the others close after their last
//!    answer.
//! 4. **End.** All connections are closed, or the drain is over. Requests without a complete answer
//!    are then an error; connections without a request are not.
//!
//! The servers of tonic and axum are not used. Neither bounds its shutdown; tonic's answers a missed
//! deadline with CANCELLED; axum's sets no time limit for a request's headers.

use std::{
    error::Error,
    future::Future,
    io,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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

use crate::{
    batched::Batched,
    limit::{ConnectionLimit, Slot},
    preface::PrefaceLimit,
    requests::Requests,
};

/// A client must begin within this time: with HTTP/2's preface, or a first byte of HTTP/1.
const BEGINNING: Duration = Duration::from_secs(10);
/// Maximum time that an HTTP/1 connection may wait for its next request, headers included. Longer
/// than Go's clients (90 s), nginx and load balancers (60 s) keep an idle connection: the client
/// should close first, because a request to a closing connection is lost.
const IDLE: Duration = Duration::from_secs(120);
/// The last read takes this part of the drain.
const LAST_READ: u32 = 8;
/// Maximum duration of the last read.
const MAX_LAST_READ: Duration = Duration::from_millis(250);
/// A silent HTTP/2 connection is pinged after this time, and closed if no answer arrives.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Pause after a failed accept. The usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The versions of HTTP that a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/2 only, without an upgrade, as gRPC clients speak it.
    Grpc,
    /// HTTP/1.1, or HTTP/2 if the client begins with it.
    Http,
}

/// The limits of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Open connections; more wait.
    pub(crate) max_connections: NonZeroU32,
    /// Time to finish accepted requests after the stop.
    pub(crate) drain: Duration,
}

/// Serves until `stop` is done, then finishes the accepted requests within the drain. The
/// [module](self) describes the phases.
///
/// # Errors
///
/// When requests are unfinished at the end of the drain.
pub(crate) async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    protocol: Protocol,
    settings: Settings,
    stop: impl Future<Output = ()>,
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
    let mut limit = ConnectionLimit::new(settings.max_connections);
    connections.accept_until(&listener, &mut limit, stop).await;
    let by = Instant::now() + settings.drain;
    connections.ending.store(true, Ordering::Relaxed);
    // A backlog of zero: the kernel queues no further connections.
    let _refused = SockRef::from(&listener).listen(0);
    let last_read = sleep((settings.drain / LAST_READ).min(MAX_LAST_READ));
    connections
        .accept_until(&listener, &mut limit, last_read)
        .await;
    drop(listener);
    let Connections {
        graceful, requests, ..
    } = connections;
    if timeout_at(by, graceful.shutdown()).await.is_ok() {
        return Ok(());
    }
    // A client that hangs or has vanished never closes its connection.
    match requests.unfinished() {
        0 => {
            debug!("connections without a request remained open");
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
        .header_read_timeout(IDLE)
        // One buffer: a vectored write of a small answer costs more than the copy.
        .writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        // A client sends all its calls over one connection. With a limit, further calls would wait
        // in the client unseen. tonic and the gRPC servers of other languages set none either.
        .max_concurrent_streams(None);
    match protocol {
        Protocol::Grpc => builder.http2_only(),
        Protocol::Http => builder,
    }
}

/// The shared parts of a server's connections.
struct Connections<S> {
    builder: auto::Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    requests: Requests,
    /// True if answers ask HTTP/1 clients to close their connections.
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
    /// Accepts connections until `end` is done.
    async fn accept_until(
        &self,
        listener: &TcpListener,
        limit: &mut ConnectionLimit,
        end: impl Future<Output = ()>,
    ) {
        tokio::pin!(end);
        loop {
            let next = async {
                let slot = limit.slot().await;
                (slot, listener.accept().await)
            };
            tokio::select! {
                (slot, accepted) = next => match accepted {
                    Ok((stream, _peer)) => self.spawn(stream, slot),
                    Err(error) => pause_after(&error).await,
                },
                () = &mut end => return,
            }
        }
    }

    /// Serves a connection in a task of its own, which holds the slot.
    fn spawn(&self, stream: TcpStream, slot: Slot) {
        // Small answers must not wait for more. An error means that the socket is already closed.
        let _closed = stream.set_nodelay(true);
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
                TokioIo::new(PrefaceLimit::within(BEGINNING, stream)),
                service_fn(answer),
            )
            .into_owned();
        // For every protocol: a connection speaks its own only from its first bytes on.
        let watched = Batched::new(self.graceful.watch(connection));
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                debug!(error = &*error, "connection ended");
            }
            drop(slot);
        });
    }
}

async fn pause_after(error: &io::Error) {
    let client_gone = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    );
    if !client_gone {
        warn!(%error, "cannot accept a connection");
        sleep(ACCEPT_PAUSE).await;
    }
}
