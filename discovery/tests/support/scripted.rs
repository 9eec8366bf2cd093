//! Servers in memory whose responses a test writes itself, for faults that a gRPC library does not make.

use std::{future::pending, sync::Arc};

use discovery::{
    Instance,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    registry::StaticRegistry,
};
use futures_util::future::BoxFuture;
use http::{Request, Response};

/// The end of one call, as a transport gives it.
pub(crate) type Answer = Result<Response<TransportBody>, SendError>;

type Script = dyn Fn(u16) -> BoxFuture<'static, Answer> + Send + Sync;

/// Connects to servers that answer every call by a script, which has the server's port.
#[derive(Clone)]
pub(crate) struct Scripted(Arc<Script>);

impl Scripted {
    pub(crate) fn new<F: Future<Output = Answer> + Send + 'static>(
        script: impl Fn(u16) -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |port| Box::pin(script(port))))
    }

    /// A registry of this many servers, with the ports from 1.
    pub(crate) fn registry(count: u16) -> Arc<StaticRegistry> {
        let instances = (1..=count).map(|port| Instance::new("127.0.0.1", port).unwrap());
        Arc::new(StaticRegistry::new(instances))
    }
}

impl Factory for Scripted {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        let server = Server {
            script: Arc::clone(&self.0),
            port: instance.port,
        };
        Box::pin(async { Ok(Connection::new(server, pending())) })
    }
}

struct Server {
    script: Arc<Script>,
    port: u16,
}

impl Transport for Server {
    fn send(&self, _: Request<RequestBody>) -> BoxFuture<'static, Answer> {
        (self.script)(self.port)
    }

    fn is_closed(&self) -> bool {
        false
    }
}
