//! The connection layer through a channel: the end of its runtime, the origin of requests, and byte
//! streams of the application.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use discovery::{Channel, ChannelBuilder, Instance, connection::Http2, registry::StaticRegistry};
use http::Uri;
use proto::{TrimRequest, trim_client::TrimClient, trim_server::TrimServer};
use testkit::Trimmer;
use tokio::{
    io::{DuplexStream, duplex},
    net::{TcpListener, UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Code, transport::Server};

fn request() -> TrimRequest {
    TrimRequest { s: "x".to_owned() }
}

#[tokio::test]
async fn a_channel_whose_runtime_ended_has_no_ready_connection() {
    let servers = support::TrimServer::start_many(2).await;
    let registry = Arc::new(support::fixed(&servers));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let channel = {
        let _inside = runtime.enter();
        Channel::from_registry(registry, "trim_service")
            .build()
            .unwrap()
    };
    support::eventually(|| channel.status().ready == 2).await;

    tokio::task::spawn_blocking(move || drop(runtime))
        .await
        .unwrap();
    assert_eq!(channel.status().ready, 0);
    let error = TrimClient::new(channel)
        .trim_space(request())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("runtime has ended"), "{error}");
}

/// A server whose answer to every call is the status `NOT_FOUND` with the request's URI.
async fn uri_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", Code::NotFound as i32)
                        .header("grpc-message", request.uri().to_string());
                    respond
                        .send_response(response.body(()).unwrap(), true)
                        .unwrap();
                }
            });
        }
    });
    address
}

async fn uri_seen(builder: ChannelBuilder, client_origin: Option<&'static str>) -> String {
    let channel = builder.build().unwrap();
    let mut client = match client_origin {
        Some(origin) => TrimClient::with_origin(channel, Uri::from_static(origin)),
        None => TrimClient::new(channel),
    };
    let status = client.trim_space(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    status.message().to_owned()
}

#[tokio::test]
async fn the_authority_is_the_client_s_or_the_setting_or_the_address() {
    let address = uri_server().await;
    let builder = || {
        let instance = Instance::new("127.0.0.1", address.port()).unwrap();
        Channel::from_registry(Arc::new(StaticRegistry::new([instance])), "trim_service")
    };
    let origin = |uri| Http2::new().with_origin(Uri::from_static(uri));
    let method = "/pb.Trim/TrimSpace";
    let seen = uri_seen(builder(), None).await;
    assert_eq!(seen, format!("http://{address}{method}"));
    // On the factory, where each part may be left out.
    let seen = uri_seen(builder().factory(origin("https://factory.example")), None).await;
    assert_eq!(seen, format!("https://factory.example{method}"));
    let seen = uri_seen(builder().factory(origin("factory.example:80")), None).await;
    assert_eq!(seen, format!("http://factory.example:80{method}"));
    // On the channel, before or after the factory.
    let channel = Uri::from_static("https://channel.example");
    let factory = || origin("http://factory.example");
    for builder in [
        builder().origin(channel.clone()),
        builder().origin(channel.clone()).factory(factory()),
        builder().factory(factory()).origin(channel.clone()),
    ] {
        let seen = uri_seen(builder, None).await;
        assert_eq!(seen, format!("https://channel.example{method}"));
    }
    // On the client: more specific than both.
    let builder = builder().factory(factory()).origin(channel);
    let seen = uri_seen(builder, Some("http://client.example:1")).await;
    assert_eq!(seen, format!("http://client.example:1{method}"));
}

/// A channel to one instance whose ID is `id`.
fn channel(id: &str, http2: Http2) -> Channel {
    let mut instance = Instance::new("localhost", 1).unwrap();
    id.clone_into(&mut instance.id);
    Channel::from_registry(Arc::new(StaticRegistry::new([instance])), "trim_service")
        .factory(http2)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_connector_gives_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("trim.sock")).unwrap();
    tokio::spawn(
        Server::builder()
            .add_service(TrimServer::new(Trimmer))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    let path = folder.path().to_owned();
    let http2 =
        Http2::new().with_connector(move |instance| UnixStream::connect(path.join(&instance.id)));
    let channel = channel("trim.sock", http2);
    for _ in 0..3 {
        let response = TrimClient::new(channel.clone()).trim_space(request()).await;
        assert_eq!(response.unwrap().into_inner().s, "x");
    }
}

#[tokio::test]
async fn a_connector_gives_a_pipe_in_this_process() {
    let (accept, accepted) = mpsc::unbounded_channel();
    tokio::spawn(
        Server::builder()
            .add_service(TrimServer::new(Trimmer))
            .serve_with_incoming(UnboundedReceiverStream::new(accepted)),
    );
    let http2 = Http2::new().with_connector(move |_| {
        let (client, server) = duplex(1024);
        let accepted = accept.send(Ok::<_, io::Error>(server));
        async move { accepted.map(|()| client) }
    });
    let channel = channel("pipe", http2);
    let response = TrimClient::new(channel).trim_space(request()).await;
    assert_eq!(response.unwrap().into_inner().s, "x");
}

#[tokio::test]
async fn a_connector_that_fails_is_a_connection_that_fails() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let http2 = Http2::new().with_connector(move |instance| {
        counted.fetch_add(1, Ordering::SeqCst);
        let error = format!("no tunnel to {}", instance.id);
        async move { Err::<DuplexStream, _>(error) }
    });
    let channel = channel("far", http2);
    let error = TrimClient::new(channel.clone()).trim_space(request()).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("no tunnel to far"), "{error}");
    // It is tried again, as any other connection.
    support::eventually(|| attempts.load(Ordering::SeqCst) > 1).await;
    drop(channel);
}
