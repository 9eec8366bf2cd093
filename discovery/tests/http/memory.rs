//! Servers in memory that answer by a script.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use discovery::{
    Instance, RetryPolicy,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    http::{Channel, ChannelBuilder},
    registry::StaticRegistry,
};
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::time::sleep;

/// Time until an answer, so that the clock moves while calls are made.
const ANSWER: Duration = Duration::from_millis(1);

/// The end of one request, as a transport gives it.
pub(crate) type Answer = Result<Response<TransportBody>, SendError>;

/// A request as a server has received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) port: u16,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: String,
}

type Script = dyn Fn(Seen) -> BoxFuture<'static, Answer> + Send + Sync;

/// Servers with the ports from 1. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Memory {
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: u16,
}

impl Memory {
    pub(crate) fn new<F: Future<Output = Answer> + Send + 'static>(
        count: u16,
        script: impl Fn(Seen) -> F + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Arc::new(move |seen| Box::pin(script(seen))),
            seen: Arc::default(),
            count,
        }
    }

    /// A channel to them.
    pub(crate) fn builder(&self) -> ChannelBuilder {
        let instances = (1..=self.count).map(|port| Instance::new("127.0.0.1", port).unwrap());
        let registry = StaticRegistry::new(instances);
        Channel::from_registry(Arc::new(registry), "orders").factory(self.clone())
    }

    /// A channel whose instances are all connected.
    pub(crate) async fn channel(&self) -> Channel {
        connected(self.builder()).await
    }

    /// The requests received so far, without probes.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The ports that have received these requests, in their order.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.seen().iter().map(|seen| seen.port).collect()
    }
}

/// A policy for real sockets: it takes no slow answer of a busy machine for a late one.
pub(crate) fn patient() -> RetryPolicy {
    RetryPolicy::default()
        .with_timeout(Duration::from_secs(20))
        .with_learn_attempt_timeout(false)
}

pub(crate) async fn connected(builder: ChannelBuilder) -> Channel {
    let channel = builder.build().unwrap();
    let all = |status: &discovery::ChannelStatus| {
        status.instances > 0 && status.ready == status.instances
    };
    channel.wait_for(all).await.unwrap();
    channel
}

impl Factory for Memory {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        let server = Server {
            memory: self.clone(),
            port: instance.port,
        };
        Box::pin(async { Ok(Connection::new(server, pending())) })
    }
}

struct Server {
    memory: Memory,
    port: u16,
}

impl Transport for Server {
    fn send(&self, request: Request<RequestBody>) -> BoxFuture<'static, Answer> {
        let (memory, port) = (self.memory.clone(), self.port);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(SendError::new)?.to_bytes();
            let seen = Seen {
                port,
                method: parts.method,
                path: parts.uri.path().to_owned(),
                body: String::from_utf8(body.to_vec()).unwrap(),
            };
            // Nothing but the channel's own probes asks for the head of `/`.
            if seen.method != Method::HEAD || seen.path != "/" {
                memory.seen.lock().unwrap().push(seen.clone());
            }
            sleep(ANSWER).await;
            (memory.script)(seen).await
        })
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// A response with this status, headers and text.
#[allow(clippy::unnecessary_wraps, reason = "an answer as others are")]
pub(crate) fn respond(status: u16, headers: &[(&str, &str)], text: &str) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {});
    Ok(response.body(body.boxed_unsync()).unwrap())
}
