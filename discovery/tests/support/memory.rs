//! Trim servers in memory, and the [`Factory`] that connects to them. With a paused clock, tests on them
//! are exact and take no time.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use discovery::{
    BoxError, Instance,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    registry::StaticRegistry,
};
use futures_util::{future::BoxFuture, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use testkit::grpc_message;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep},
};
use tonic::Status;

use super::Behaviour;

/// Time until a connection is made.
const CONNECT: Duration = Duration::from_millis(10);
/// Time until an answer, so that the clock moves while calls are made.
const ANSWER: Duration = Duration::from_millis(1);
/// A message of length zero: every field of a `TrimResponse` has its default.
const EMPTY_MESSAGE: &[u8] = &[0; 5];
/// A `HealthCheckResponse` with the status `SERVING`.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x01];
/// A `HealthCheckResponse` with the status `NOT_SERVING`.
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x02];

/// A `HealthCheckResponse` with the status `SERVICE_UNKNOWN`.
const SERVICE_UNKNOWN: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x03];

/// The answer of a server's health service.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Health {
    Serving,
    NotServing,
    /// The server does not know the service.
    Unknown,
    /// The server gives no answer to a watch until it has another one.
    Silent,
    /// Watches end with an error.
    Broken,
    /// The server does not have the health service.
    NoService,
}

/// A server in memory. Clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct MemoryServer(Arc<State>);

struct State {
    port: u16,
    calls: AtomicUsize,
    connections_made: AtomicUsize,
    silent: AtomicBool,
    health: watch::Sender<Health>,
    watched: Mutex<Vec<(Instant, String)>>,
    timeouts: Mutex<Vec<String>>,
    behaviour: Mutex<Option<Behaviour>>,
}

impl MemoryServer {
    fn new(port: u16) -> Self {
        Self(Arc::new(State {
            port,
            calls: AtomicUsize::new(0),
            connections_made: AtomicUsize::new(0),
            silent: AtomicBool::new(false),
            health: watch::Sender::new(Health::Serving),
            watched: Mutex::default(),
            timeouts: Mutex::default(),
            behaviour: Mutex::new(None),
        }))
    }

    pub(crate) fn instance(&self) -> Instance {
        Instance::new("127.0.0.1", self.0.port).unwrap()
    }

    /// Calls received. Health checks are not counted.
    pub(crate) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn connections_made(&self) -> usize {
        self.0.connections_made.load(Ordering::SeqCst)
    }

    /// The `grpc-timeout` of every call that had one.
    pub(crate) fn timeouts(&self) -> Vec<String> {
        self.0.timeouts.lock().unwrap().clone()
    }

    /// Sets what happens to calls from now on; the argument is the call's number.
    pub(crate) fn behave<F, O>(&self, behaviour: F)
    where
        F: Fn(usize) -> O + Send + Sync + 'static,
        O: Future<Output = Result<(), Status>> + Send + 'static,
    {
        *self.0.behaviour.lock().unwrap() = Some(Arc::new(move |nth| Box::pin(behaviour(nth))));
    }

    /// Accepts connections and requests from now on, health checks included, and answers none.
    pub(crate) fn fall_silent(&self) {
        self.0.silent.store(true, Ordering::SeqCst);
    }

    /// Sets the answer of the health service.
    pub(crate) fn report(&self, health: Health) {
        self.0.health.send_replace(health);
    }

    /// The time of each watch of the health service, and the service that it asks for.
    pub(crate) fn watched(&self) -> Vec<(Instant, String)> {
        self.0.watched.lock().unwrap().clone()
    }

    /// Watches that are open.
    pub(crate) fn open_watches(&self) -> usize {
        self.0.health.receiver_count()
    }

    /// Answers every call from now on.
    pub(crate) fn recover(&self) {
        *self.0.behaviour.lock().unwrap() = None;
        self.0.silent.store(false, Ordering::SeqCst);
    }
}

/// Connects to servers in memory by their port.
#[derive(Clone)]
pub(crate) struct Memory(Vec<MemoryServer>);

impl Memory {
    pub(crate) fn with_servers(count: u16) -> Self {
        Self((1..=count).map(MemoryServer::new).collect())
    }

    pub(crate) fn servers(&self) -> &[MemoryServer] {
        &self.0
    }

    /// A registry of these servers.
    pub(crate) fn registry(&self) -> StaticRegistry {
        StaticRegistry::new(self.0.iter().map(MemoryServer::instance))
    }
}

impl Factory for Memory {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(async {
            let server = self.0.iter().find(|server| server.0.port == instance.port);
            let server = server.ok_or_else(|| ConnectError::Connect("refused".into()))?;
            server.0.connections_made.fetch_add(1, Ordering::SeqCst);
            sleep(CONNECT).await;
            let (open, dropped) = oneshot::channel::<()>();
            let link = Link {
                server: server.clone(),
                _open: open,
            };
            // It lasts until its last call has ended.
            let driver = async move {
                let _dropped = dropped.await;
                Ok(())
            };
            Ok(Connection::new(link, driver))
        })
    }
}

impl Transport for MemoryServer {
    fn send(
        &self,
        request: http::Request<RequestBody>,
    ) -> BoxFuture<'static, Result<http::Response<TransportBody>, SendError>> {
        let server = self.clone();
        Box::pin(async move {
            if server.0.silent.load(Ordering::SeqCst) {
                return pending().await;
            }
            let path = request.uri().path();
            match path {
                "/grpc.health.v1.Health/Check" => {
                    sleep(ANSWER).await;
                    let health = *server.0.health.borrow();
                    return Ok(match health {
                        Health::Serving => grpc_message(SERVING),
                        Health::NotServing => grpc_message(NOT_SERVING),
                        Health::Unknown => Status::not_found("no such service").into_http(),
                        Health::Silent => return pending().await,
                        Health::Broken => Status::internal("broken").into_http(),
                        Health::NoService => Status::unimplemented("no such service").into_http(),
                    });
                }
                "/grpc.health.v1.Health/Watch" => return Ok(server.watch(request).await),
                path => assert_eq!(path, "/pb.Trim/TrimSpace"),
            }
            if let Some(timeout) = request.headers().get("grpc-timeout") {
                let timeout = timeout.to_str().unwrap().to_owned();
                server.0.timeouts.lock().unwrap().push(timeout);
            }
            let nth = server.0.calls.fetch_add(1, Ordering::SeqCst);
            sleep(ANSWER).await;
            let behaviour = server.0.behaviour.lock().unwrap().clone();
            match behaviour {
                Some(behaviour) => match behaviour(nth).await {
                    Ok(()) => Ok(grpc_message(EMPTY_MESSAGE)),
                    Err(status) => Ok(status.into_http()),
                },
                None => Ok(grpc_message(EMPTY_MESSAGE)),
            }
        })
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// A connection to a server.
struct Link {
    server: MemoryServer,
    _open: oneshot::Sender<()>,
}

impl Transport for Link {
    fn send(
        &self,
        request: http::Request<RequestBody>,
    ) -> BoxFuture<'static, Result<http::Response<TransportBody>, SendError>> {
        self.server.send(request)
    }

    fn is_closed(&self) -> bool {
        self.server.is_closed()
    }
}

impl MemoryServer {
    /// Answers a watch of the health service with each state from now on. It never ends by itself.
    async fn watch(&self, request: http::Request<RequestBody>) -> http::Response<TransportBody> {
        let message = request.into_body().collect().await.unwrap().to_bytes();
        // Flag and length, then the tag and the length of the name.
        let service = message.get(7..).unwrap_or_default();
        let service = String::from_utf8(service.to_vec()).unwrap();
        self.0
            .watched
            .lock()
            .unwrap()
            .push((Instant::now(), service));
        sleep(ANSWER).await;
        let mut health = self.0.health.subscribe();
        let current = *health.borrow_and_update();
        match current {
            Health::NoService => return Status::unimplemented("no such service").into_http(),
            Health::Broken => return Status::internal("broken").into_http(),
            _ => health.mark_changed(),
        }
        let answers = stream::unfold(health, |mut health| async move {
            loop {
                health.changed().await.ok()?;
                let current = *health.borrow_and_update();
                let message = match current {
                    Health::Serving => SERVING,
                    Health::NotServing => NOT_SERVING,
                    Health::Unknown => SERVICE_UNKNOWN,
                    Health::Silent => continue,
                    Health::Broken | Health::NoService => {
                        return Some((Err(BoxError::from("the stream broke")), health));
                    }
                };
                return Some((Ok(Frame::data(Bytes::from_static(message))), health));
            }
        });
        let response = grpc_message(&[]);
        response.map(|_| StreamBody::new(answers).boxed_unsync())
    }
}
