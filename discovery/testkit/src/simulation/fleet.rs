//! The instances: processes without sockets, which can be slow, faulty or ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use discovery::{
    BoxError, Instance,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
};
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use tokio::{sync::oneshot, time::sleep};

use super::changing::Changing;
use crate::{grpc_message, grpc_status};

/// Time to connect.
const CONNECT: Duration = Duration::from_millis(2);
/// Shortest and longest time of a call in milliseconds.
const WORK: std::ops::RangeInclusive<u64> = 4..=20;
/// Factor of the time of a call on a slow instance.
const SLOW: u32 = 10;
/// Method of the health check that an ejected instance has to pass.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const UNAVAILABLE: u16 = 14;

/// All processes by ID, including those that ended.
#[derive(Clone, Default)]
pub(crate) struct Fleet {
    processes: Arc<Mutex<BTreeMap<String, Arc<Process>>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Every instance answers UNAVAILABLE.
    outage: AtomicBool,
    /// Attempts that reached an instance.
    attempts: AtomicU64,
    rng: Mutex<Option<fastrand::Rng>>,
}

/// The process of one instance.
pub(crate) struct Process {
    ended: Changing<bool>,
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
            ended: Changing::new(false),
            slow: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        };
        lock(&self.processes).insert(instance.id.clone(), Arc::new(process));
    }

    /// Ends a process and breaks its connections.
    pub(crate) fn kill(&self, id: &str) {
        if let Some(process) = self.process(id) {
            process.ended.change(|ended| *ended = true);
        }
    }

    pub(crate) fn process(&self, id: &str) -> Option<Arc<Process>> {
        lock(&self.processes).get(id).cloned()
    }

    pub(crate) fn set_outage(&self, outage: bool) {
        self.shared.outage.store(outage, Ordering::Relaxed);
    }

    /// Attempts that have reached an instance so far.
    pub(crate) fn attempts(&self) -> u64 {
        self.shared.attempts.load(Ordering::Relaxed)
    }
}

impl Process {
    pub(crate) fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.ended.read(|ended| *ended)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Completes when the process ends.
    async fn end(self: Arc<Self>) {
        self.ended.wait_for(|ended| ended.then_some(())).await;
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
                .filter(|process| process.is_running())
                .ok_or_else(|| ConnectError::Connect("refused".into()))?;
            let (open, closed) = oneshot::channel();
            let counted = Counted::new(&process);
            let ended = Arc::clone(&process).end();
            let driver = async move {
                let _counted = counted;
                tokio::select! {
                    biased;
                    () = ended => Err(BoxError::from("reset")),
                    // Ends when the transport is dropped.
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
        let faulty = self.shared.outage.load(Ordering::Relaxed);
        let ended = Arc::clone(&self.process).end();
        async move {
            tokio::select! {
                biased;
                () = ended => Err(SendError::new("reset")),
                () = sleep(Duration::from_millis(work) * factor) => Ok(answer(faulty, health)),
            }
        }
        .boxed()
    }

    fn is_closed(&self) -> bool {
        !self.process.is_running()
    }
}

/// `UNAVAILABLE` if faulty, else `SERVING` to a health check and an empty message to a call.
fn answer(faulty: bool, health: bool) -> Response<TransportBody> {
    if faulty {
        grpc_status(UNAVAILABLE)
    } else if health {
        grpc_message(&[0, 0, 0, 0, 2, 8, 1])
    } else {
        grpc_message(&[0; 5])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
