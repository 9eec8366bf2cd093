//! Channels to services in this process, as a user's own tests make them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    future::{Ready, pending, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use discovery::{
    Channel, InProcess, Instance, ServedBy,
    connection::{Factory as _, RequestBody},
    registry::StaticRegistry,
};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use proto::{
    TrimRequest, TrimResponse,
    trim_client::TrimClient,
    trim_server::{Trim, TrimServer},
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Response, Status, body::Body, service::Routes};

/// Answers with its own name, or as the request says.
#[derive(Clone)]
struct Named {
    name: String,
    calls: Arc<AtomicUsize>,
}

impl Named {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            calls: Arc::default(),
        }
    }
}

#[tonic::async_trait]
impl Trim for Named {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match request.into_inner().s.as_str() {
            "fail" => Err(Status::invalid_argument("no")),
            "hang" => pending().await,
            text => Ok(Response::new(TrimResponse {
                s: format!("{}: {text}", self.name),
            })),
        }
    }
}

fn request(text: &str) -> TrimRequest {
    TrimRequest { s: text.to_owned() }
}

/// A channel to these instances, named by their hosts.
fn channel<const N: usize>(servers: &InProcess<TrimServer<Named>>, hosts: [&str; N]) -> Channel {
    let instances = hosts.map(|host| {
        let mut instance = Instance::new(host, 1).unwrap();
        host.clone_into(&mut instance.id);
        instance
    });
    Channel::from_registry(Arc::new(StaticRegistry::new(instances)), "trim_service")
        .factory(servers.clone())
        .build()
        .unwrap()
}

/// Servers that are called by the name of their instance.
fn servers() -> InProcess<TrimServer<Named>> {
    InProcess::per_instance(|instance| TrimServer::new(Named::new(&instance.host)))
}

#[tokio::test]
async fn one_line_gives_a_channel_to_a_service() {
    let service = TrimServer::new(Named::new("x"));
    let channel = Channel::in_process(service.clone()).build().unwrap();
    let mut client = TrimClient::new(channel);
    let response = client.trim_space(request("a")).await.unwrap();
    assert_eq!(response.into_inner().s, "x: a");

    let error = client.trim_space(request("fail")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::InvalidArgument, "no")
    );

    // Routes, and a service with an interceptor.
    let routes = Channel::in_process(Routes::new(service)).build().unwrap();
    let response = TrimClient::new(routes).trim_space(request("b")).await;
    assert_eq!(response.unwrap().into_inner().s, "x: b");
    let guarded = TrimServer::with_interceptor(Named::new("x"), |_: Request<()>| {
        Err(Status::unauthenticated("who?"))
    });
    let guarded = Channel::in_process(guarded).build().unwrap();
    let error = TrimClient::new(guarded).trim_space(request("c")).await;
    assert_eq!(error.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn every_instance_is_called_and_a_stopped_one_no_longer() {
    let servers = servers();
    let channel = channel(&servers, ["a", "b"]);
    support::eventually(|| channel.status().ready == 2).await;
    let mut client = TrimClient::new(channel.clone());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let response = client.trim_space(request("x")).await.unwrap();
        let instance = response.extensions().get::<ServedBy>().unwrap().0.clone();
        let text = response.into_inner().s;
        assert_eq!(text, format!("{}: x", instance.host));
        seen.push(text);
    }
    seen.sort();
    assert_eq!(seen, ["a: x", "b: x"]);

    servers.stop("a");
    for _ in 0..10 {
        let response = client.trim_space(request("x")).await.unwrap();
        assert_eq!(response.into_inner().s, "b: x");
    }
    support::eventually(|| channel.status().ready == 1).await;

    servers.stop("b");
    let error = client.trim_space(request("x")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("server is stopped"), "{error}");

    servers.start("a");
    support::eventually(|| channel.status().ready == 1).await;
    let response = client.trim_space(request("x")).await.unwrap();
    assert_eq!(response.into_inner().s, "a: x");
}

#[tokio::test]
async fn a_stopped_server_breaks_the_calls_in_flight() {
    let service = Named::new("x");
    let calls = Arc::clone(&service.calls);
    let servers = InProcess::new(TrimServer::new(service));
    let channel = channel(&servers, ["a"]);
    let mut client = TrimClient::new(channel.clone());
    let call = tokio::spawn(async move {
        let mut request = Request::new(request("hang"));
        request.set_timeout(std::time::Duration::from_secs(60));
        client.trim_space(request).await
    });
    support::eventually(|| calls.load(Ordering::SeqCst) == 1).await;
    servers.stop("a");
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    support::eventually(|| channel.status().ready == 0).await;
}

#[tokio::test]
async fn a_dropped_channel_drops_its_services() {
    let service = Named::new("x");
    let shared = Arc::clone(&service.calls);
    let channel = Channel::in_process(TrimServer::new(service))
        .build()
        .unwrap();
    channel.ready().await;
    drop(channel);
    support::eventually(|| Arc::strong_count(&shared) == 1).await;
}

/// Answers with a body that has one frame and no end.
#[derive(Clone)]
struct Endless;

impl tower_service::Service<http::Request<Body>> for Endless {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Ready<Result<http::Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let first = Ok::<_, Status>(Frame::data(Bytes::from_static(b"first")));
        let frames = tokio_stream::once(first).chain(tokio_stream::pending());
        ready(Ok(http::Response::new(Body::new(StreamBody::new(frames)))))
    }
}

#[tokio::test]
async fn a_stopped_server_breaks_the_responses_that_are_read() {
    let servers = InProcess::new(Endless);
    let instance = Instance::parse("a:1").unwrap();
    let connection = servers.connect(&instance).await.unwrap();
    let driver = tokio::spawn(connection.driver);
    let request = || http::Request::new(RequestBody::whole(Bytes::new()));
    let response = connection.transport.send(request()).await.unwrap();
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first");

    servers.stop(&instance.id);
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("stopped"), "{error}");
    assert!(driver.await.unwrap().is_err());
    assert!(connection.transport.is_closed());
    let error = connection.transport.send(request()).await.unwrap_err();
    assert!(error.never_processed, "{error}");
    assert!(servers.connect(&instance).await.is_err());
}

#[tokio::test]
async fn a_connection_ends_with_its_transport_and_the_last_response() {
    let servers = InProcess::new(Endless);
    let instance = Instance::parse("a:1").unwrap();
    let connection = servers.connect(&instance).await.unwrap();
    let request = http::Request::new(RequestBody::whole(Bytes::new()));
    let response = connection.transport.send(request).await.unwrap();
    let driver = tokio::spawn(connection.driver);
    drop(connection.transport);
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert!(!driver.is_finished());
    drop(body);
    driver.await.unwrap().unwrap();
}
