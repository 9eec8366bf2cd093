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

use discovery::{
    Instance,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    registry::StaticRegistry,
};
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use http_body_util::{BodyExt as _, StreamBody};
use testkit::grpc_message;
use tokio::time::sleep;
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

/// The answer of a server's health service.
#[derive(Clone, Copy)]
pub(crate) enum Health {
    Serving,
    NotServing,
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
    health: Mutex<Health>,
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
            health: Mutex::new(Health::Serving),
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
        *self.0.health.lock().unwrap() = health;
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
            Ok(Connection::new(server.clone(), pending()))
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
                    let health = *server.0.health.lock().unwrap();
                    return Ok(match health {
                        Health::Serving => grpc_message(SERVING),
                        Health::NotServing => grpc_message(NOT_SERVING),
                        Health::NoService => Status::unimplemented("no such service").into_http(),
                    });
                }
                "/grpc.health.v1.Health/Watch" => {
                    sleep(ANSWER).await;
                    return Ok(without_end(grpc_message(SERVING)));
                }
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

/// The same messages as a stream that never ends.
fn without_end(response: http::Response<TransportBody>) -> http::Response<TransportBody> {
    response.map(|body| {
        let messages = body
            .into_data_stream()
            .map(|data| data.map(http_body::Frame::data));
        StreamBody::new(messages.chain(stream::pending())).boxed_unsync()
    })
}
