//! Go kit's client reads what is registered here in its layout, and the other way round.
//!
//! `scripts/get-go-peer.sh zookeeper` builds the program and prints its path for `ZOOKEEPER_PEER_BIN`.

use std::{env, path::Path};

use discovery::registry::Check;
use testkit::{
    Process, Signal,
    registries::{Server, ZooKeeper, skip},
};

use crate::{
    LIMIT, SERVICE, client, registered,
    sets::{ids, registration, until},
    start, watch,
};

/// Runs the program with Go kit's client, or says that the test is skipped.
fn go_kit(server: &Server<ZooKeeper>, arguments: &[&str]) -> Option<Process> {
    let Some(binary) = env::var_os("ZOOKEEPER_PEER_BIN") else {
        let reason = "ZOOKEEPER_PEER_BIN is not set; set it to what `scripts/get-go-peer.sh zookeeper` prints";
        skip("Go kit with ZooKeeper", reason).unwrap();
        return None;
    };
    let address = server.address();
    let all = [&*address].into_iter().chain(arguments.iter().copied());
    Some(Process::spawn(Path::new(&binary), all).unwrap())
}

#[tokio::test]
async fn go_kit_finds_what_is_registered_here() {
    let Some(server) = start().await else { return };
    let Some(go_kit) = go_kit(&server, &["watch", SERVICE]) else {
        return;
    };
    go_kit.stdout_line("[]", LIMIT).await.unwrap();
    let url = format!("{}?layout=gokit", server.url());
    let registrar = registered(client(&url, registration(8975, Check::Default))).await;
    let seen = go_kit.stdout_line("[127.0.0.1:8975]", LIMIT).await.unwrap();
    assert_eq!(seen, "[127.0.0.1:8975]");
    registrar.deregister(LIMIT).await.unwrap();
    testkit::eventually("removed by Go kit", LIMIT, async || {
        go_kit.stdout().ends_with("[127.0.0.1:8975]\n[]\n")
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_go_kit_registers_is_found_here() {
    let Some(server) = start().await else { return };
    let (_watch, mut sets) = watch(&format!("{}?layout=gokit", server.url()));
    let register = ["register", "/services", "trim_service", "127.0.0.1:8975"];
    // It deregisters on SIGTERM. After SIGKILL its session ends by itself.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let Some(mut go_kit) = go_kit(&server, &register) else {
            return;
        };
        go_kit.stdout_line("registered", LIMIT).await.unwrap();
        until(&mut sets, |set| ids(set) == ["127.0.0.1:8975"]).await;
        go_kit.signal(signal).unwrap();
        go_kit.exit(LIMIT).await.unwrap();
        until(&mut sets, |set| set.instances.is_empty()).await;
    }
}
