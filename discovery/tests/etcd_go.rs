//! The clients of etcd that Go programs use, and this crate, in one etcd: each finds what the other
//! registers.

#![cfg(feature = "etcd")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod sets;

use std::{env, path::Path, time::Duration};

use discovery::{
    Registrar, RegistrationState,
    registry::{self, Check, Query, Registration},
};
use testkit::{
    Process, Signal,
    registries::{Etcd, Server, skip},
};

use crate::sets::{ids, registration, until};

/// A Go program starts in well under a second, on a quiet machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts an etcd. `None` without etcd or the Go program, which has been said.
async fn start() -> Option<(Server<Etcd>, Peer)> {
    let Some(peer) = env::var_os("ETCD_PEER_BIN") else {
        let reason = "ETCD_PEER_BIN is not set; set it to what scripts/get-go-peer.sh etcd prints";
        skip("Go's clients of etcd", reason).unwrap();
        return None;
    };
    let etcd = Server::start(Etcd).await.unwrap()?;
    let peer = Peer {
        binary: peer.to_str().unwrap().to_owned(),
        endpoint: etcd.address(),
    };
    Some((etcd, peer))
}

struct Peer {
    binary: String,
    endpoint: String,
}

impl Peer {
    fn run(&self, arguments: &[&str]) -> Process {
        let arguments = [&[self.endpoint.as_str()], arguments].concat();
        Process::spawn(Path::new(&self.binary), arguments).unwrap()
    }
}

async fn register(url: &str, registration: Registration) -> Registrar {
    let client = registry::connect(url)
        .unwrap()
        .registration(registration)
        .unwrap();
    let registrar = Registrar::start(client).unwrap();
    let mut state = registrar.state();
    state
        .wait_for(RegistrationState::is_registered)
        .await
        .unwrap();
    registrar
}

/// Waits until the last line of the program's output is this one.
async fn shows(process: &Process, expected: &str) {
    let last = async || {
        let output = process.stdout();
        let last = output.lines().last().unwrap_or_default().to_owned();
        if last == expected { Ok(()) } else { Err(last) }
    };
    testkit::eventually(expected, LIMIT, last).await.unwrap();
}

#[tokio::test]
async fn go_kits_instancer_finds_ours() {
    let Some((etcd, peer)) = start().await else {
        return;
    };
    let watch = peer.run(&["gokit", "watch", "/services/trim_service/"]);
    shows(&watch, "[]").await;
    let registrar = register(&etcd.url(), registration(8975, Check::Default)).await;
    shows(&watch, "[127.0.0.1:8975]").await;
    registrar.deregister(LIMIT).await.unwrap();
    shows(&watch, "[]").await;
}

#[tokio::test]
async fn go_kits_registrar_is_found() {
    let Some((etcd, peer)) = start().await else {
        return;
    };
    let etcd_registry = registry::connect(&etcd.url()).unwrap();
    let instancer = etcd_registry
        .instancer(&Query::new("trim_service"))
        .unwrap();
    let mut sets = instancer.watch();
    let key = "/services/trim_service/127.0.0.1:8976";
    let registered = peer.run(&["gokit", "register", key, "127.0.0.1:8976"]);
    until(&mut sets, |set| ids(set) == ["trim_service-127.0.0.1-8976"]).await;
    registered.signal(Signal::SIGTERM).unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
}

#[tokio::test]
async fn etcds_endpoints_package_and_resolver_find_ours() {
    let Some((etcd, peer)) = start().await else {
        return;
    };
    let url = format!("{}/naming?layout=grpc", etcd.url());
    let mut wanted = registration(8975, Check::Default);
    wanted.instance = wanted
        .instance
        .with_tags(["blue"])
        .with_zone("a")
        .with_weight(3);
    let watch = peer.run(&["grpc", "watch", "naming/trim_service"]);
    let resolver = peer.run(&["grpc", "resolve", "naming/trim_service"]);
    let registrar = register(&url, wanted).await;
    shows(&resolver, "[127.0.0.1:8975]").await;
    let metadata = r#"{"id":"trim_service-127.0.0.1-8975","tags":["blue"],"weight":3,"zone":"a"}"#;
    shows(&watch, &format!("[127.0.0.1:8975={metadata}]")).await;
    registrar.deregister(LIMIT).await.unwrap();
    shows(&watch, "[]").await;
    shows(&resolver, "[]").await;
}

#[tokio::test]
async fn an_endpoint_of_etcds_package_is_found() {
    let Some((etcd, peer)) = start().await else {
        return;
    };
    let url = format!("{}/naming?layout=grpc", etcd.url());
    let etcd_registry = registry::connect(&url).unwrap();
    let instancer = etcd_registry
        .instancer(&Query::new("trim_service"))
        .unwrap();
    let mut sets = instancer.watch();
    let key = "naming/trim_service/127.0.0.1:8976";
    let metadata = r#"{"zone":"b","version":"2","weight":5}"#;
    let registered = peer.run(&["grpc", "register", key, "127.0.0.1:8976", metadata]);
    let set = until(&mut sets, |set| set.instances.len() == 1).await;
    let found = &set.instances[0];
    assert_eq!(found.authority(), "127.0.0.1:8976");
    assert_eq!((found.zone.as_deref(), found.weight), (Some("b"), 5));
    assert_eq!(found.meta["version"], "2");
    // Killed: its lease of 5 s ends.
    registered.signal(Signal::SIGKILL).unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
}
