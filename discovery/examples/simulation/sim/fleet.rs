//! The instances: processes without sockets, which can be slow, sick or gone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use discovery::{
    BoxError, Instance,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
};
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{sync::oneshot, time::sleep};

use super::changing::Changing;

/// Time to connect, and the shortest and longest time of a call; ten times as long when slow.
const CONNECT: Duration = Duration::from_millis(2);
const WORK: std::ops::RangeInclusive<u64> = 4..=20;
const SLOW: u32 = 10;
/// What an ejected instance is asked before it gets calls again.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

/// All processes by ID, those that have left included.
#[derive(Clone, Default)]
pub(crate) struct Fleet {
    processes: Arc<Mutex<BTreeMap<String, Arc<Process>>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Every instance answers UNAVAILABLE.
    outage: AtomicBool,
    /// Calls that reached an instance.
    attempts: AtomicU64,
    rng: Mutex<Option<fastrand::Rng>>,
}

/// One instance's process.
pub(crate) struct Process {
    gone: Changing<bool>,
    slow: AtomicBool,
    calls: AtomicU64,
    connections: AtomicU64,
}

impl Fleet {
    /// A fleet whose latencies are drawn from this generator.
    pub(crate) fn new(rng: fastrand::Rng) -> Self {
        let fleet = Self::default();
        *lock(&fleet.shared.rng) = Some(rng);
        fleet
    }

    pub(crate) fn start(&self, instance: &Instance) {
        let process = Process {
            gone: Changing::new(false),
            slow: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        };
        lock(&self.processes).insert(instance.id.clone(), Arc::new(process));
    }

    /// Ends a process: its connections break with it.
    pub(crate) fn kill(&self, id: &str) {
        if let Some(process) = self.process(id) {
            process.gone.change(|gone| *gone = true);
        }
    }

    pub(crate) fn process(&self, id: &str) -> Option<Arc<Process>> {
        lock(&self.processes).get(id).cloned()
    }

    pub(crate) fn set_outage(&self, outage: bool) {
        self.shared.outage.store(outage, Ordering::Relaxed);
    }

    /// Calls that have reached any instance so far.
    pub(crate) fn attempts(&self) -> u64 {
        self.shared.attempts.load(Ordering::Relaxed)
    }
}

impl Process {
    pub(crate) fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    pub(crate) fn lives(&self) -> bool {
        !self.gone.read(|gone| *gone)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Ends with the process; never before.
    async fn ended(self: Arc<Self>) {
        self.gone.wait_for(|gone| gone.then_some(())).await;
    }
}

impl Factory for Fleet {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        async move {
            sleep(CONNECT).await;
            let process = self
                .process(&instance.id)
                .filter(|process| process.lives())
                .ok_or_else(|| ConnectError::Connect("refused".into()))?;
            let (open, closed) = oneshot::channel();
            let counted = Counted::new(&process);
            let ended = Arc::clone(&process).ended();
            let driver = async move {
                let _counted = counted;
                tokio::select! {
                    biased;
                    () = ended => Err(BoxError::from("reset")),
                    // Nothing is ever sent: this is the transport being dropped.
                    _ = closed => Ok(()),
                }
            };
            let line = Line {
                process,
                shared: Arc::clone(&self.shared),
                _open: open,
            };
            Ok(Connection::new(line, driver))
        }
        .boxed()
    }
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<Process>);

impl Counted {
    fn new(process: &Arc<Process>) -> Self {
        process.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(process))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection to a process.
struct Line {
    process: Arc<Process>,
    shared: Arc<Shared>,
    _open: oneshot::Sender<()>,
}

impl Transport for Line {
    fn send(
        &self,
        request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        let health = request.uri().path() == HEALTH;
        if !health {
            self.process.calls.fetch_add(1, Ordering::Relaxed);
            self.shared.attempts.fetch_add(1, Ordering::Relaxed);
        }
        let work = lock(&self.shared.rng)
            .get_or_insert_with(fastrand::Rng::new)
            .u64(WORK);
        let factor = if self.process.slow.load(Ordering::Relaxed) {
            SLOW
        } else {
            1
        };
        let sick = self.shared.outage.load(Ordering::Relaxed);
        let ended = Arc::clone(&self.process).ended();
        async move {
            tokio::select! {
                biased;
                () = ended => Err(SendError::new("reset")),
                () = sleep(Duration::from_millis(work) * factor) => Ok(answer(sick, health)),
            }
        }
        .boxed()
    }

    fn is_closed(&self) -> bool {
        !self.process.lives()
    }
}

/// UNAVAILABLE without a message, an empty message, or `SERVING`.
fn answer(sick: bool, health: bool) -> Response<TransportBody> {
    let mut frames: Vec<Result<Frame<Bytes>, BoxError>> = Vec::new();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    if sick {
        headers.insert("grpc-status", UNAVAILABLE);
    } else {
        let message: &[u8] = if health {
            &[0, 0, 0, 0, 2, 8, 1]
        } else {
            &[0; 5]
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        frames.push(Ok(Frame::data(Bytes::from_static(message))));
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
