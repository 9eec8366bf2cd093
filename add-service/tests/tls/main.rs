//! TLS between callers, the add service and trim services, with real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rotation;
#[path = "../support/mod.rs"]
mod support;
mod tools;

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    time::Duration,
};

use discovery::{
    Channel,
    connection::{Http2, Tls},
};
use futures_util::future::join_all;
use proto::{ConcatRequest, add_client::AddClient};
use testkit::{
    AddService, Process, TestCa, TrimService, add_service, eventually, service_binary, trim_service,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval, timeout},
};

use crate::support::LIMIT;

/// The flags of a server with the certificate of this name, which requires one of its clients.
fn server(ca: &TestCa, name: &str) -> Vec<String> {
    let mut flags = without_clients(ca, name);
    flags.extend(["--tls-client-ca".to_owned(), ca.path("ca.pem")]);
    flags
}

/// The flags of a server that does not ask its clients.
fn without_clients(ca: &TestCa, name: &str) -> Vec<String> {
    let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
    let (cert, key) = (ca.path(&certificate), ca.path(&key));
    ["--tls-cert".to_owned(), cert, "--tls-key".to_owned(), key].into()
}

/// The flags of calls to trim services.
fn client(ca: &TestCa, name: &str) -> Vec<String> {
    let file = |ending: &str| ca.path(&format!("{name}.{ending}"));
    let [cert, key] = ["--trim-tls-cert", "--trim-tls-key"].map(str::to_owned);
    let mut flags = trusting(ca);
    flags.extend([cert, file("pem"), key, file("key")]);
    flags
}

/// The flags of calls to trim services without a certificate.
fn trusting(ca: &TestCa) -> Vec<String> {
    let authority = ["--trim-tls-ca".to_owned(), ca.path("ca.pem")];
    let name = ["--trim-tls-server-name".to_owned(), "trim.test".to_owned()];
    [authority, name].concat()
}

async fn trim(flags: &[String]) -> TrimService {
    let mut all = vec!["--consul", "127.0.0.1:1"];
    all.extend(flags.iter().map(String::as_str));
    trim_service(&all).await.unwrap()
}

/// An add service that uses these instances, or one that cannot be reached.
async fn add(trims: &[TrimService], flags: &[String]) -> AddService {
    let mut addresses: Vec<_> = trims.iter().map(|trim| trim.grpc.to_string()).collect();
    if addresses.is_empty() {
        addresses.push("127.0.0.1:1".to_owned());
    }
    let addresses = addresses.join(",");
    let mut all = vec!["--static", &addresses];
    all.extend(flags.iter().map(String::as_str));
    add_service(&all).await.unwrap()
}

/// A client of the add service, with the certificate of this name.
fn caller(add: &AddService, ca: &TestCa, name: Option<&str>) -> AddClient<Channel> {
    let mut tls = Tls::new().with_ca_pem(ca.pem()).with_domain("localhost");
    if let Some(name) = name {
        let read = |ending: &str| fs::read(ca.path(&format!("{name}.{ending}"))).unwrap();
        tls = tls.with_identity_pem(read("pem"), read("key"));
    }
    let channel = Channel::builder(format!("static://{}", add.grpc), "add")
        .factory(Http2::new().with_tls(tls).unwrap())
        .retry_timeout(LIMIT)
        .retry_max(1)
        .build();
    AddClient::new(channel.unwrap())
}

async fn concat(client: &mut AddClient<Channel>) -> Result<String, tonic::Status> {
    let (a, b) = ("1 0".to_owned(), "2 0".to_owned());
    let answer = client.concat(ConcatRequest { a, b }).await?;
    Ok(answer.into_inner().v)
}

/// Established connections to these ports, as local and remote port.
fn connections(ports: &[u16]) -> BTreeSet<(String, String)> {
    let wanted: Vec<String> = ports
        .iter()
        .map(|port| format!("0100007F:{port:04X}"))
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| wanted.iter().any(|port| port == fields[2]) && fields[3] == "01")
        .map(|fields| (fields[1].to_owned(), fields[2].to_owned()))
        .collect()
}

async fn logged(process: &Process, line: &str, times: usize) {
    let look = async || match process.stderr().matches(line).count() {
        seen if seen >= times => Ok(()),
        _ => Err(process.stderr()),
    };
    eventually(line, LIMIT, look).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_is_not_accepted_is_named_with_the_reason_on_both_sides() {
    let (ca, other) = (TestCa::new().unwrap(), TestCa::new().unwrap());
    for name in ["trim", "add"] {
        ca.issue(name).unwrap();
        other.issue(name).unwrap();
    }
    ca.issue_expired("old").unwrap();
    let strange_client = [&trusting(&ca)[..], &client(&other, "add")[4..]].concat();
    let wrong_name = [&trusting(&ca)[..3], &["another.test".to_owned()]].concat();
    let expired = [&trusting(&ca)[..3], &["old.test".to_owned()]].concat();
    let cases = [
        (
            server(&ca, "trim"),
            client(&other, "add"),
            "the server's certificate is not signed by a trusted authority",
            "the client does not accept this server's certificate",
        ),
        (
            server(&ca, "trim"),
            strange_client,
            "the server does not trust the authority of this client's certificate",
            "the client's certificate is not signed by an authority of --tls-client-ca",
        ),
        (
            server(&ca, "trim"),
            trusting(&ca),
            "the server requires a client certificate",
            "the client has no certificate, and --tls-client-auth requires one",
        ),
        (
            without_clients(&ca, "trim"),
            wrong_name,
            "the server's certificate is not for \"another.test\"",
            "TLS handshake failed",
        ),
        (
            without_clients(&ca, "old"),
            expired,
            "the server's certificate has expired",
            "has expired on 2021-01-01T00:00:00Z: peers refuse it",
        ),
        (
            without_clients(&ca, "trim"),
            Vec::new(),
            "the answer is not HTTP/2; does the server expect TLS",
            "the client does not use TLS, which this port expects",
        ),
        (
            Vec::new(),
            trusting(&ca),
            "expect connections without TLS?",
            "the client uses TLS, and this port has none",
        ),
    ];
    join_all(cases.map(async |(of_trim, of_add, at_client, at_server)| {
        let trims = [trim(&of_trim).await];
        let add = add(&trims, &of_add).await;
        logged(&add.process, at_client, 1).await;
        logged(&trims[0].process, at_server, 1).await;
    }))
    .await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_served_where_one_is_optional() {
    let ca = TestCa::new().unwrap();
    for name in ["trim", "add", "caller"] {
        ca.issue(name).unwrap();
    }
    let optional = || {
        [
            server(&ca, "trim"),
            vec!["--tls-client-auth=optional".to_owned()],
        ]
        .concat()
    };
    let trims = [trim(&optional()).await];
    let add = add(&trims, &[optional(), trusting(&ca)].concat()).await;
    for name in [None, Some("caller")] {
        assert_eq!(concat(&mut caller(&add, &ca, name)).await.unwrap(), "1020");
    }
    let other = TestCa::new().unwrap();
    other.issue_into(&ca, "stranger").unwrap();
    let error = concat(&mut caller(&add, &ca, Some("stranger")))
        .await
        .unwrap_err();
    assert!(
        error.message().contains("does not trust the authority"),
        "{error}"
    );
}

#[tokio::test]
async fn handshakes_that_are_not_finished_make_room_for_clients() {
    let ca = TestCa::new().unwrap();
    ca.issue("a").unwrap();
    let limit = vec!["--max-connections=5".to_owned()];
    let add = add(&[], &[limit, without_clients(&ca, "a")].concat()).await;
    let mut half = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(add.grpc).await.unwrap();
        // The beginning of a record.
        stream.write_all(b"\x16\x03\x01").await.unwrap();
        half.push(stream);
    }
    let begun = Instant::now();
    let sum = proto::SumRequest { a: 1, b: 2 };
    let answer = caller(&add, &ca, None).sum(sum).await.unwrap();
    assert_eq!(answer.into_inner().v, 3);
    // Far less than the ten seconds of a handshake.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}
