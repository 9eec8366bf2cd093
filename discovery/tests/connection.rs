//! The connection layer through a channel: the end of its runtime, and the origin of requests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{net::SocketAddr, sync::Arc};

use discovery::{Channel, ChannelBuilder, Instance, connection::Http2, registry::StaticRegistry};
use http::{Response, Uri};
use proto::{TrimRequest, trim_client::TrimClient};
use tokio::net::TcpListener;
use tonic::Code;

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
                    let response = Response::builder()
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
