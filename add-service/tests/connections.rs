//! The limit of open connections, which every listener of both services has.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{net::SocketAddr, path::Path, time::Duration};

use support::{LIMIT, add_alone, connect, trims};
use testkit::{Process, eventually, service_binary};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// The preface of HTTP/2 and empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Connections of a flood: more than the file descriptors that the flooded process may open.
const FLOOD: usize = 120;

/// A connection that has sent the preface and waits for the server's settings.
async fn begin(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(HTTP2).await.unwrap();
    stream
}

/// True once the server has answered with its settings; false if it closed the connection.
async fn answered(stream: &mut TcpStream) -> bool {
    let mut head = [0; 9];
    let read = timeout(LIMIT, stream.read_exact(&mut head)).await.unwrap();
    read.is_ok() && head[3] == 4
}

/// Sends a ping and waits for its answer.
async fn ping(stream: &mut TcpStream) {
    stream
        .write_all(b"\0\0\x08\x06\0\0\0\0\0PINGPING")
        .await
        .unwrap();
    let mut pong = Vec::new();
    while !pong.ends_with(b"PINGPING") {
        let byte = timeout(LIMIT, stream.read_u8()).await.unwrap();
        pong.push(byte.unwrap());
    }
}

#[tokio::test]
async fn at_the_limit_a_connection_waits_until_another_closes() {
    let add = add_alone(&["--max-connections", "2"]).await;
    let trim = trims(1, &["--max-connections", "2"]).await.remove(0);
    for (address, process) in [
        (add.http, &add.process),
        (add.grpc, &add.process),
        (trim.grpc, &trim.process),
    ] {
        let mut held = [begin(address).await, begin(address).await];
        for stream in &mut held {
            assert!(answered(stream).await, "{address}");
        }
        process
            .stderr_line("connection limit reached", LIMIT)
            .await
            .unwrap();
        let mut waiting = begin(address).await;
        let early = timeout(Duration::from_millis(300), waiting.read_u8()).await;
        assert!(early.is_err(), "{address}: {early:?}");
        let [first, mut second] = held;
        drop(first);
        assert!(answered(&mut waiting).await, "{address}");
        // The connections within the limit are served all the while.
        ping(&mut second).await;
    }
}

/// The services and the flags that put them on free ports, without a registry.
const SERVICES: [(&str, &str); 2] = [
    ("trim-service", "--port 0 --consul 127.0.0.1:1"),
    (
        "add-service",
        "--http-port 0 --grpc-port 0 --consul 127.0.0.1:1",
    ),
];

/// Starts a service in a shell, after these commands.
async fn start_after(commands: &str, name: &str, ports: &str) -> Process {
    let binary = service_binary(name).await.unwrap();
    let command = format!(
        "{commands} && exec {} --listen 127.0.0.1 {ports}",
        binary.display()
    );
    Process::spawn(Path::new("/bin/sh"), ["-c", &command]).unwrap()
}

/// The flood of each port exceeds the process's file descriptors. The default limit does not.
#[tokio::test]
async fn a_flood_leaves_file_descriptors_and_the_service_answers_after_it() {
    for (name, ports) in SERVICES {
        // One peer may take all, so that the limit of all is reached.
        let ports = format!("{ports} --max-connections-per-peer 1000");
        let process = start_after("ulimit -n 100", name, &ports).await;
        let line = process.stdout_line("listening", LIMIT).await.unwrap();
        let addresses: Vec<SocketAddr> = line
            .split(' ')
            .filter_map(|field| field.split_once('=')?.1.parse().ok())
            .collect();
        let mut flood = Vec::new();
        for address in &addresses {
            // A connection that the server has not heard of yet may be closed for another one.
            let mut first = begin(*address).await;
            assert!(answered(&mut first).await, "{name}");
            flood.push(first);
            for _ in 1..FLOOD {
                flood.push(begin(*address).await);
            }
        }
        process
            .stderr_line("connection limit reached", LIMIT)
            .await
            .unwrap();
        for connections in flood.chunks_mut(FLOOD) {
            ping(&mut connections[0]).await;
            let last = connections[FLOOD - 1].read_u8();
            let early = timeout(Duration::from_millis(300), last).await;
            assert!(early.is_err(), "{name}: {early:?}");
        }
        drop(flood);
        for address in addresses {
            assert!(answered(&mut begin(address).await).await, "{name}");
        }
        let logs = process.stderr();
        assert!(!logs.contains("cannot accept a connection"), "{logs}");
    }
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    for (name, ports) in SERVICES {
        let process = start_after(
            "ulimit -Sn 100 && ulimit -Hn 200 && echo pid=$$",
            name,
            ports,
        )
        .await;
        let line = process.stdout_line("pid=", LIMIT).await.unwrap();
        let pid = line.trim_start_matches("pid=").to_owned();
        process.stdout_line("listening", LIMIT).await.unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let files: Vec<_> = files.unwrap().split_whitespace().collect();
        assert_eq!(files[3..5], ["200", "200"], "{name}: {limits}");
    }
}

#[tokio::test]
async fn a_health_check_is_answered_after_the_limit_was_reached() {
    let trim = trims(1, &["--max-connections", "1"]).await.remove(0);
    let mut only = begin(trim.grpc).await;
    assert!(answered(&mut only).await);
    drop(only);
    let mut client = HealthClient::new(connect(trim.grpc).await);
    let check = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(check.into_inner().status, 1);
}

/// A connection from another address of the loopback network.
async fn begin_from(ip: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(HTTP2).await.unwrap();
    stream
}

#[tokio::test]
async fn one_client_does_not_shut_others_out() {
    let flags = ["--max-connections=10", "--max-connections-per-peer=2"];
    let add = add_alone(&flags).await;
    let trim = trims(1, &flags).await.remove(0);
    for (address, process) in [
        (add.http, &add.process),
        (add.grpc, &add.process),
        (trim.grpc, &trim.process),
    ] {
        let [mut first, mut second] = [begin(address).await, begin(address).await];
        assert!(answered(&mut first).await && answered(&mut second).await);
        let mut third = TcpStream::connect(address).await.unwrap();
        let closed = timeout(LIMIT, third.read_u8()).await.unwrap();
        assert!(closed.is_err(), "{address}");
        process
            .stderr_line("--max-connections-per-peer", LIMIT)
            .await
            .unwrap();
        let mut other = begin_from([127, 0, 0, 2], address).await;
        assert!(answered(&mut other).await, "{address}");
        drop(first);
        let again = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(HTTP2).await.is_ok() && answered(&mut stream).await
        };
        eventually("the place is free", LIMIT, again).await.unwrap();
    }
}
