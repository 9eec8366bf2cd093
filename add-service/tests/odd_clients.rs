//! Clients that hang, send nothing or send half a request; unusual instances and settings.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use support::{Http, LIMIT, add_alone, connect, read_until, trims};
use testkit::{Consul, Process, Signal, add_service, eventually, service_binary};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_stream::StreamExt as _;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

/// How HTTP/2 begins: the preface and empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn frozen_clients_without_a_request_are_no_failure_at_the_end() {
    let mut add = add_alone(&["--drain", "300ms"]).await;
    let mut held = Vec::new();
    for (address, said) in [
        (add.grpc, &b""[..]),
        (add.grpc, HTTP2),
        (add.http, b""),
        (add.http, HTTP2),
        (add.http, b"POST /sum HTTP/1.1\r\nhost: x\r\n"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said).await.unwrap();
        if said == HTTP2 {
            // The server's settings: it has taken the connection.
            stream.read_u8().await.unwrap();
        }
        held.push(stream);
    }
    assert_eq!(Http::new(&add).get("/healthz").await.status, 200);
    add.process.signal(Signal::SIGTERM).unwrap();
    let code = add.process.exit(LIMIT).await.unwrap().code();
    assert_eq!(code, Some(0), "{}", add.process.stderr());
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_is_told_in_the_exit_code() {
    let mut add = add_alone(&["--drain", "300ms"]).await;
    let mut stream = TcpStream::connect(add.http).await.unwrap();
    let head =
        b"POST /sum HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    stream.write_all(head).await.unwrap();
    read_until(&mut stream, "100 Continue\r\n\r\n").await;
    add.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(1));
    let output = add.process.stderr();
    assert!(
        output.contains("unfinished at the end of the drain: 1;"),
        "{output}"
    );
}

#[tokio::test]
async fn health_watches_do_not_hold_up_the_end() {
    let mut add = add_alone(&["--drain", "15s"]).await;
    let mut trim = trims(1, &["--drain", "15s"]).await.remove(0);
    for (address, process, service) in [
        (add.grpc, &mut add.process, "pb.Add"),
        (trim.grpc, &mut trim.process, "pb.Trim"),
    ] {
        let mut client = HealthClient::new(connect(address).await);
        let mut watches = Vec::new();
        for service in ["", service] {
            let service = service.to_owned();
            let watch = client.watch(HealthCheckRequest { service }).await.unwrap();
            let mut watch = watch.into_inner();
            assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
            watches.push(watch);
        }
        process.signal(Signal::SIGTERM).unwrap();
        let begun = Instant::now();
        for watch in &mut watches {
            assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
            assert!(watch.message().await.unwrap().is_none());
        }
        assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(0));
        // The trim service waits a quarter of the drain for the watchers of the registry.
        assert!(begun.elapsed() < Duration::from_secs(10), "{service}");
    }
}

#[tokio::test]
async fn a_reflection_stream_does_not_hold_up_the_end() {
    let mut add = add_alone(&["--drain", "15s"]).await;
    let mut client = ServerReflectionClient::new(connect(add.grpc).await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    // As grpcurl does: one request, and the stream stays open for the next.
    let questions = tokio_stream::once(list).chain(tokio_stream::pending());
    let answers = client.server_reflection_info(questions).await.unwrap();
    let mut answers = answers.into_inner();
    answers.message().await.unwrap().unwrap();
    add.process.signal(Signal::SIGTERM).unwrap();
    assert!(answers.message().await.unwrap().is_none());
    let begun = Instant::now();
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_connection_that_does_not_begin_is_closed() {
    let add = add_alone(&[]).await;
    let trim = trims(1, &[]).await.remove(0);
    let mut held = Vec::new();
    for address in [add.http, add.grpc, trim.grpc] {
        for said in [&b""[..], b"P", b"PRI ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said).await.unwrap();
            held.push((address, said, stream));
        }
    }
    for (address, said, mut stream) in held {
        let mut received = Vec::new();
        let closed = timeout(LIMIT * 3, stream.read_to_end(&mut received)).await;
        assert!(closed.is_ok(), "{address} is open after {said:?}");
    }
}

/// The first setting of this kind that the server sends.
async fn setting(address: SocketAddr, wanted: u16) -> Option<u32> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(HTTP2).await.unwrap();
    // The server's first frame: three bytes of length, its type, which is 4, and what it sets.
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], head[1], head[3]), (0, 0, 4));
    let mut settings = vec![0; head[2].into()];
    stream.read_exact(&mut settings).await.unwrap();
    let mut settings = settings.chunks(6);
    let found = settings.find(|setting| setting[..2] == wanted.to_be_bytes());
    found.map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()))
}

/// Clients learn how many calls one connection takes, and spread further ones.
#[tokio::test]
async fn a_connection_tells_how_many_calls_it_takes() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    for (flags, expected) in [(&[][..], 256), (&["--max-streams=100"], 100)] {
        let add = add_alone(flags).await;
        let trims = trims(1, flags).await;
        for address in [add.grpc, add.http, trims[0].grpc] {
            let streams = setting(address, MAX_CONCURRENT_STREAMS).await;
            assert_eq!(streams, Some(expected));
        }
    }
}

#[tokio::test]
async fn an_id_that_is_no_header_value_fails_no_call() {
    let consul = Consul::start().await.unwrap();
    let trim = trims(1, &[]).await.remove(0);
    let entry = json!({
        "ID": "two\nlines", "Name": "trim_service",
        "Address": "127.0.0.1", "Port": trim.grpc.port(),
    });
    let registered = consul.put("/v1/agent/service/register", &entry).await;
    registered.unwrap();
    let add = add_service(&["--consul", &consul.address()]).await.unwrap();
    let http = Http::new(&add);
    http.until_ready(1).await;
    let answer = http.post("/concat", r#"{"a":"1 0","b":"2"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text, r#"{"v":"102"}"#);
    assert!(!answer.headers.contains_key("x-trim-instance"));
}

#[tokio::test]
async fn the_command_line_wins_over_variables_that_name_another_source() {
    let registry = ("REGISTRY_URL", "static://127.0.0.1:1");
    let fixed = ("ADD_FIXED", "127.0.0.1:1");
    for (binary, flags, variable) in [
        (
            "trim-service",
            &["--port=0", "--consul=127.0.0.1:1"][..],
            registry,
        ),
        (
            "add-service",
            &["--http-port=0", "--grpc-port=0", "--consul", "127.0.0.1:1"],
            fixed,
        ),
        (
            "add-service",
            &["--http-port=0", "--grpc-port=0", "--fixed=127.0.0.1:1"],
            registry,
        ),
    ] {
        let program = service_binary(binary).await.unwrap();
        let flags = flags.iter().chain(&["--listen=127.0.0.1"]);
        let process = Process::spawn_with(&program, flags, [variable]).unwrap();
        let line = process.stdout_line("listening", LIMIT).await;
        assert!(line.is_ok(), "{variable:?}: {}", process.stderr());
        if variable == fixed {
            // It uses Consul, not the instance of the variable.
            let asked = || async {
                let stderr = process.stderr();
                anyhow::ensure!(stderr.contains("consul://127.0.0.1:1"), "{stderr}");
                Ok(())
            };
            eventually("Consul is asked", LIMIT, asked).await.unwrap();
        }
    }
    let program = service_binary("add-service").await.unwrap();
    let both = ["--consul=127.0.0.1:1", "--registry=static://127.0.0.1:1"];
    let mut process = Process::spawn(&program, both).unwrap();
    assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(2));
}
