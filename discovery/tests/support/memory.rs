//! Connections in memory, so that tests of time run on a paused clock.
//!
//! The servers are [`TrimServer`]s without a socket: the same behaviour and the same counters. A
//! call goes from the channel's transport straight into tonic's server code and back.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use discovery::{
    BoxError, Instance,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
};
use futures_util::future::{BoxFuture, FutureExt as _, pending, ready};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tonic::{body::Body, service::Routes};
use tower_service::Service as _;

use super::{Service, TrimServer, TrimService};

/// Servers without sockets, for a channel with a [`Network`] of them.
pub(crate) fn servers(count: u16) -> Vec<TrimServer> {
    (1..=count)
        .map(|port| TrimServer {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            state: Arc::default(),
            running: None,
            at_once: None,
        })
        .collect()
}

/// The servers that a channel can connect to.
pub(crate) struct Network(HashMap<String, Line>);

impl Network {
    /// Each server with its trim service and the standard health service.
    pub(crate) fn of<'a>(servers: impl IntoIterator<Item = &'a TrimServer>) -> Self {
        let line = |server: &TrimServer| {
            let (_reporter, health) = tonic_health::server::health_reporter();
            let trim = TrimService::new(Service(Arc::clone(&server.state)));
            Line(Routes::new(trim).add_service(health).prepare())
        };
        Self(
            servers
                .into_iter()
                .map(|server| (server.instance().id, line(server)))
                .collect(),
        )
    }
}

impl Factory for Network {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        let line = self.0.get(&instance.id).cloned();
        let connection = line.map(|line| Connection {
            transport: Box::new(line),
            driver: pending().boxed(),
        });
        ready(connection.ok_or_else(|| ConnectError::Connect("connection refused".into()))).boxed()
    }
}

/// A connection that never breaks.
#[derive(Clone)]
struct Line(Routes);

impl Transport for Line {
    fn send(
        &self,
        request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        let mut server = self.0.clone();
        async move {
            let Ok(response) = server.call(request.map(Body::new)).await;
            let body = |body: Body| body.map_err(BoxError::from).boxed_unsync();
            Ok(response.map(body))
        }
        .boxed()
    }

    fn is_closed(&self) -> bool {
        false
    }
}
