//! A generated client around the channel, as users of tonic put it together: interceptors, tower
//! layers, boxed services, compression.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use discovery::{
    CallError, CallErrorKind, Channel, ResponseBody, ServedBy, registry::StaticRegistry,
};
use http::{Request, Response};
use proto::{TrimRequest, trim_client::TrimClient};
use support::TrimServer;
use tonic::{Code, Status, codec::CompressionEncoding};
use tower::{BoxError, Service as _, ServiceBuilder, ServiceExt as _, util::BoxCloneService};

fn channel(server: &TrimServer) -> Channel {
    let registry = Arc::new(support::fixed([server]));
    Channel::from_registry(registry, "trim_service")
        .build()
        .unwrap()
}

fn message() -> TrimRequest {
    TrimRequest { s: " a b ".into() }
}

#[tokio::test]
async fn an_interceptor_adds_metadata_and_can_refuse_a_call() {
    let server = TrimServer::start().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let mut client =
        TrimClient::with_interceptor(channel(&server), move |mut request: tonic::Request<()>| {
            if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                return Err(Status::unauthenticated("no token"));
            }
            request
                .metadata_mut()
                .insert("x-token", "secret".parse().unwrap());
            Ok(request)
        });
    let response = client.trim_space(message()).await.unwrap();
    assert!(response.extensions().get::<ServedBy>().is_some());
    assert_eq!(response.into_inner().s, "ab");
    assert_eq!(server.metadata("x-token"), ["secret"]);
    let refused = client.trim_space(message()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn tower_layers_go_around_the_channel() {
    let server = TrimServer::start().await;
    let layered = ServiceBuilder::new()
        .concurrency_limit(8)
        .map_request(|mut request: Request<tonic::body::Body>| {
            let headers = request.headers_mut();
            headers.insert("x-layer", "seen".parse().unwrap());
            request
        })
        .map_err(BoxError::from)
        .service(channel(&server));
    let mut client = TrimClient::new(layered);
    assert_eq!(
        client.trim_space(message()).await.unwrap().into_inner().s,
        "ab"
    );
    assert_eq!(server.metadata("x-layer"), ["seen"]);
}

#[tokio::test]
async fn a_boxed_channel_is_a_channel() {
    let server = TrimServer::start().await;
    let boxed: BoxCloneService<Request<tonic::body::Body>, Response<ResponseBody>, Status> =
        channel(&server).boxed_clone();
    let mut client = TrimClient::new(boxed.clone());
    assert_eq!(
        client.trim_space(message()).await.unwrap().into_inner().s,
        "ab"
    );
    let mut other = TrimClient::new(boxed);
    assert_eq!(
        other.trim_space(message()).await.unwrap().into_inner().s,
        "ab"
    );
}

#[tokio::test]
async fn messages_are_compressed_both_ways() {
    let server = TrimServer::start().await;
    let mut client = TrimClient::new(channel(&server))
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let s = "text ".repeat(1_000);
    let response = client.trim_space(TrimRequest { s }).await.unwrap();
    assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(server.metadata("grpc-encoding"), ["gzip"]);
    assert_eq!(response.into_inner().s, "text".repeat(1_000));
}

#[tokio::test]
async fn the_error_behind_a_status_says_what_kind_it_is() {
    let registry = Arc::new(StaticRegistry::new([]));
    let channel = Channel::from_registry(registry, "trim_service")
        .build()
        .unwrap();
    let status = TrimClient::new(channel)
        .trim_space(message())
        .await
        .unwrap_err();
    let error = CallError::of(&status).unwrap();
    assert_eq!(error.kind, CallErrorKind::NoInstances);
    assert!(error.attempts.is_empty());
    assert!(CallError::of(&Status::unavailable("from elsewhere")).is_none());
}

#[tokio::test]
async fn details_and_metadata_of_the_last_status_survive_retries() {
    let server = TrimServer::start().await;
    server.behave(|_| async {
        let mut status = Status::with_details(Code::Unavailable, "busy", "details".into());
        status
            .metadata_mut()
            .insert("x-server", "a".parse().unwrap());
        Err(status)
    });
    let status = TrimClient::new(channel(&server))
        .trim_space(message())
        .await
        .unwrap_err();
    let error = CallError::of(&status).unwrap();
    assert_eq!(error.kind, CallErrorKind::AttemptsExhausted);
    let codes: Vec<_> = error.attempts.iter().map(|attempt| attempt.code).collect();
    assert_eq!(codes, [discovery::Code::Unavailable; 3]);
    assert_eq!(status.details(), b"details");
    assert_eq!(status.metadata().get("x-server").unwrap(), "a");
}

#[tokio::test]
async fn the_limit_that_ended_a_call_is_named_with_its_setting() {
    let server = TrimServer::start().await;
    server.behave(|_| std::future::pending());
    let timeout = std::time::Duration::from_millis(50);
    let registry = Arc::new(support::fixed([&server]));
    let channel = Channel::from_registry(registry, "trim_service")
        .retry_timeout(timeout)
        .build()
        .unwrap();
    let mut request = tonic::Request::new(message());
    request.set_timeout(100 * timeout);
    let status = TrimClient::new(channel)
        .trim_space(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let expected = "within 50ms (retry_timeout 50ms; the caller gave 5.0s)";
    assert!(status.message().contains(expected), "{status}");
    assert_eq!(
        CallError::of(&status).unwrap().kind,
        CallErrorKind::Deadline
    );
}

#[tokio::test]
async fn a_silent_registry_is_named() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("consul://{}", silent.local_addr().unwrap());
    let channel = Channel::builder(&url, "trim_service")
        .retry_timeout(std::time::Duration::from_millis(50))
        .build()
        .unwrap();
    let status = TrimClient::new(channel)
        .trim_space(message())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        status
            .message()
            .contains(&format!("no answer from the registry {url}")),
        "{status}"
    );
    assert_eq!(
        CallError::of(&status).unwrap().kind,
        CallErrorKind::RegistrySilent
    );
}

#[tokio::test]
async fn changes_are_reported_without_polling() {
    let servers = TrimServer::start_many(2).await;
    let registry = support::fixed(&servers[..1]);
    let channel = Channel::from_registry(Arc::new(registry.clone()), "trim_service")
        .build()
        .unwrap();
    channel.wait_for(|status| status.ready == 1).await.unwrap();
    let mut changes = channel.changes();
    registry.set(servers.iter().map(TrimServer::instance));
    changes.changed().await.unwrap();
    channel.wait_for(|status| status.ready == 2).await.unwrap();
    let endpoints = channel.endpoints();
    assert_eq!(endpoints.len(), 2);
    for endpoint in endpoints {
        assert_eq!(endpoint.connectivity, discovery::ConnectivityState::Ready);
        assert!(!endpoint.ejected && !endpoint.protected && endpoint.in_flight == 0);
    }
    drop(channel);
    while changes.changed().await.is_ok() {}
}

/// A server, and a channel that is connected to it.
async fn ready() -> (TrimServer, Channel) {
    let server = TrimServer::start().await;
    let channel = channel(&server);
    channel.ready().await;
    (server, channel)
}

#[test]
fn a_call_outside_of_a_runtime_is_an_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_server, channel) = runtime.block_on(ready());
    let mut client = TrimClient::new(channel);
    let status = futures_executor::block_on(client.trim_space(message())).unwrap_err();
    assert_eq!(
        CallError::of(&status).unwrap().kind,
        CallErrorKind::NoRuntime
    );
}

/// A request whose message is empty.
fn request() -> Request<http_body_util::Full<bytes::Bytes>> {
    let message = bytes::Bytes::from_static(&[0; 5]);
    Request::post("/pb.Trim/TrimSpace")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(message.into())
        .unwrap()
}

#[test]
fn it_counts_where_a_call_is_carried_out_not_where_it_is_made() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_server, mut channel) = runtime.block_on(ready());
    let call = channel.call(request());
    let response = runtime.block_on(call).unwrap();
    assert!(response.extensions().get::<ServedBy>().is_some());

    let entered = runtime.enter();
    let call = channel.call(request());
    drop(entered);
    let status = futures_executor::block_on(call).unwrap_err();
    assert_eq!(
        CallError::of(&status).unwrap().kind,
        CallErrorKind::NoRuntime
    );
}

#[test]
fn a_channel_whose_runtime_has_ended_says_so() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, channel) = runtime.block_on(ready());
    runtime.shutdown_timeout(std::time::Duration::from_secs(60));
    drop(server);
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    other.block_on(async {
        assert_eq!(channel.status().ready, 0);
        assert!(channel.wait_for(|_| false).await.is_err());
        let status = TrimClient::new(channel)
            .trim_space(message())
            .await
            .unwrap_err();
        assert_eq!(
            CallError::of(&status).unwrap().kind,
            CallErrorKind::RuntimeEnded
        );
        assert!(status.message().contains("runtime"), "{status}");
    });
}
