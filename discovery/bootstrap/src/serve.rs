//! Serves HTTP on one listener, for gRPC and plain HTTP alike.
//!
//! [`serve`] has four phases:
//!
//! 1. **Accept.** Until `stop`, each connection takes a slot of the connection limit and a place of its
//!    peer's limit, and is served in a task of its own. At the limit, a connection whose client has not
//!    begun is closed, or new connections wait in the kernel's queue.
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
    net::SocketAddr,
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
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, warn};

use crate::{
    activity::Activity,
    batched::Batched,
    client_stream::{ClientStream, Times},
    limit::{ConnectionLimit, Slot},
    limits::Limits,
    peers::{Peers, Place},
    request_body::{Memory, RequestBody, Reserved},
    requests::{Endless, Requests},
    thinned::Thinned,
    tls::{Acceptor, accept},
    transport::Transport,
};

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
/// Flow-control window of each stream, which gRPC's clients and servers begin with too. A request that
/// waits for memory takes this much.
const STREAM_WINDOW: u32 = 64 << 10;
/// Maximum size of a flow-control window (RFC 9113, section 6.9.1).
const MAX_WINDOW: u32 = u32::MAX >> 1;

static ACCEPT_FAILED: Thinned = Thinned::new();
static PEER_AT_LIMIT: Thinned = Thinned::new();
static FLOODS: Thinned = Thinned::new();

/// The versions of HTTP that a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/2 only, without an upgrade, as gRPC clients speak it.
    Grpc,
    /// HTTP/1.1, or HTTP/2 if the client begins with it.
    Http,
}

/// The limits of a server.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Open connections; more wait.
    pub(crate) max_connections: NonZeroU32,
    /// Open connections of one peer; more are closed.
    pub(crate) max_connections_per_peer: NonZeroU32,
    /// The limits of each connection.
    pub(crate) limits: Limits,
    /// Time to finish accepted requests after the stop.
    pub(crate) drain: Duration,
    /// `None` without TLS.
    pub(crate) tls: Option<Arc<Acceptor>>,
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
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connections = Connections {
        builder: builder(protocol, settings.limits),
        protocol,
        limits: settings.limits,
        limit: ConnectionLimit::new(settings.max_connections),
        peers: Peers::new(settings.max_connections_per_peer),
        tls: settings.tls,
        graceful: GracefulShutdown::new(),
        finish: watch::Sender::new(()),
        requests: Requests::default(),
        ending: Arc::default(),
        service,
    };
    let mut accepted = None;
    connections
        .accept_until(&listener, &mut accepted, stop)
        .await;
    let by = Instant::now() + settings.drain;
    connections.ending.store(true, Ordering::Relaxed);
    // A backlog of zero: the kernel queues no further connections.
    let _refused = SockRef::from(&listener).listen(0);
    let last_read = sleep((settings.drain / LAST_READ).min(MAX_LAST_READ));
    connections
        .accept_until(&listener, &mut accepted, last_read)
        .await;
    drop(listener);
    let Connections {
        graceful,
        requests,
        finish,
        ..
    } = connections;
    // Handshakes that are not complete are given up.
    drop(finish);
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

fn builder(protocol: Protocol, limits: Limits) -> auto::Builder<TokioExecutor> {
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
        // Without a limit, one connection could hold any number of unfinished requests.
        .max_concurrent_streams(limits.max_streams.get())
        .initial_stream_window_size(STREAM_WINDOW)
        // No stream waits for the window of the connection, which requests that wait would use up.
        .initial_connection_window_size(
            limits
                .max_streams
                .get()
                .saturating_mul(STREAM_WINDOW)
                .min(MAX_WINDOW),
        );
    match protocol {
        Protocol::Grpc => builder.http2_only(),
        Protocol::Http => builder,
    }
}

/// The shared parts of a server's connections.
struct Connections<S> {
    builder: auto::Builder<TokioExecutor>,
    protocol: Protocol,
    limits: Limits,
    limit: ConnectionLimit,
    peers: Peers,
    tls: Option<Arc<Acceptor>>,
    graceful: GracefulShutdown,
    /// Dropped when connections are no longer begun.
    finish: watch::Sender<()>,
    requests: Requests,
    /// True if answers ask HTTP/1 clients to close their connections.
    ending: Arc<AtomicBool>,
    service: S,
}

impl<S, B> Connections<S>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Accepts connections until `end` is done. `accepted` is one that waits for a slot.
    async fn accept_until(
        &self,
        listener: &TcpListener,
        accepted: &mut Option<(TcpStream, SocketAddr)>,
        end: impl Future<Output = ()>,
    ) {
        let accept = async {
            loop {
                if accepted.is_none() {
                    self.limit.warn_if_reached();
                    match listener.accept().await {
                        Ok(connection) => *accepted = Some(connection),
                        Err(error) => {
                            pause_after(&error).await;
                            continue;
                        }
                    }
                }
                let slot = self.limit.slot(|| self.peers.make_room()).await;
                if let Some((stream, peer)) = accepted.take() {
                    self.admit(stream, peer, slot).await;
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = end => {}
        }
    }

    /// Serves a connection, or closes it if its peer has too many.
    async fn admit(&self, stream: TcpStream, peer: SocketAddr, slot: Slot) {
        let activity = Arc::<Activity>::default();
        match self.peers.admit(peer.ip(), &activity, slot).await {
            Some(place) => self.spawn(stream, peer, activity, place),
            None => {
                if let Some(suppressed) = PEER_AT_LIMIT.line() {
                    warn!(
                        client = %peer.ip(),
                        suppressed,
                        "connection refused: the client has the most connections that one may have \
                         (--max-connections-per-peer)"
                    );
                }
            }
        }
    }

    /// Serves a connection in a task of its own, which holds the place.
    fn spawn(&self, stream: TcpStream, peer: SocketAddr, activity: Arc<Activity>, place: Place) {
        // Small answers must not wait for more. An error means that the socket is already closed.
        let _closed = stream.set_nodelay(true);
        let (counter, ending) = (self.requests.clone(), Arc::clone(&self.ending));
        let service = TowerToHyperService::new(self.service.clone());
        let (protocol, memory) = (self.protocol, Memory::new(self.limits.memory));
        let times = Times {
            begin: self.limits.begin,
            receive: self.limits.receive,
        };
        let (tls, begin) = (self.tls.clone(), self.limits.begin);
        let told = Arc::clone(&activity);
        let answer = move |request: Request<Incoming>| {
            let closable = request.version() < Version::HTTP_2;
            let ending = Arc::clone(&ending);
            let (request, mut unfinished) = if closable {
                // One at a time.
                let request = request.map(RequestBody::unlimited);
                (request, counter.begin(Held::Http1(Answering::new(&told))))
            } else {
                let reserved = Arc::new(Reserved::none(memory.clone()));
                let held = Held::Http2(Arc::clone(&reserved));
                let request = request.map(|body| match protocol {
                    Protocol::Grpc => RequestBody::messages(body, reserved),
                    Protocol::Http => RequestBody::whole(body, reserved),
                });
                (request, counter.begin(held))
            };
            let answer = service.call(request);
            // Boxed: hyper moves the future of a request of HTTP/2 several times.
            Box::pin(async move {
                let answer = answer.await?;
                if answer.extensions().get::<Endless>().is_some() {
                    unfinished.forget();
                }
                let mut answer = answer.map(|body| unfinished.until_sent(body));
                if closable && ending.load(Ordering::Relaxed) {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, S::Error>(answer)
            })
        };
        let builder = self.builder.clone();
        // Before the protocol is known, which the first bytes decide.
        let (watcher, mut finish) = (self.graceful.watcher(), self.finish.subscribe());
        let key = place.key();
        let task = tokio::spawn(async move {
            // The place is held to the end of the connection.
            let _place = place;
            let transport = match &tls {
                None => Transport::Plain(stream),
                Some(tls) => {
                    // Boxed: connections without TLS have no room for it.
                    let accepted = accept(tls, stream, peer, protocol, &activity, begin);
                    let accepted = Box::pin(accepted);
                    let transport = tokio::select! {
                        transport = accepted => transport,
                        _ended = finish.changed() => None,
                    };
                    let Some(transport) = transport else {
                        return;
                    };
                    transport
                }
            };
            let stream = ClientStream::new(transport, peer.ip(), times, activity)
                .http2_only(protocol == Protocol::Grpc)
                .inside_tls(tls.is_some());
            let connection = builder
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .into_owned();
            if let Err(error) = Batched::new(watcher.watch(connection)).await {
                debug!(client = %peer, error = &*error, "connection ended");
                if is_flood(&*error)
                    && let Some(suppressed) = FLOODS.line()
                {
                    warn!(client = %peer.ip(), suppressed, "connection ended: a flood of frames");
                }
            }
        });
        Place::served_by(&self.peers, key, task.abort_handle());
    }
}

/// True if h2 has ended the connection with `ENHANCE_YOUR_CALM`.
fn is_flood(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        }
        next = error.source();
    }
    false
}

/// Kept until a request is answered.
enum Held {
    Http1(#[allow(dead_code, reason = "dropped at the end")] Answering),
    Http2(#[allow(dead_code, reason = "dropped at the end")] Arc<Reserved>),
}

/// A request of HTTP/1, until its answer is sent.
struct Answering(Arc<Activity>);

impl Answering {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.accept();
        Self(Arc::clone(activity))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answer();
    }
}

async fn pause_after(error: &io::Error) {
    let client_gone = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    );
    if !client_gone {
        if let Some(suppressed) = ACCEPT_FAILED.line() {
            warn!(%error, suppressed, "cannot accept a connection");
        }
        sleep(ACCEPT_PAUSE).await;
    }
}
