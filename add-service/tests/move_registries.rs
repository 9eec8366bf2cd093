//! A move from Consul to etcd under continuous calls: the instances are in Consul, then in both, then in
//! etcd.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};
use testkit::{
    Consul, TrimService, add_service, eventually,
    registries::{Etcd, Server},
};

use crate::support::{Http, LIMIT, calls::Calls, trims};

/// Established connections from this machine to a port, each by its local port.
fn connections(port: u16) -> BTreeSet<u16> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port_of =
        |address: &str| u16::from_str_radix(address.rsplit_once(':').unwrap().1, 16).unwrap();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            (state == "01" && port_of(remote) == port).then(|| port_of(local))
        })
        .collect()
}

fn all_connections(trims: &[TrimService]) -> Vec<BTreeSet<u16>> {
    trims
        .iter()
        .map(|trim| connections(trim.grpc.port()))
        .collect()
}

#[tokio::test]
async fn a_move_from_consul_to_etcd_loses_no_call_and_no_connection() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let mut consul = Consul::start().await.unwrap();
    // The instances run through the whole move. Other tools register them.
    let trims = trims(3, &[]).await;
    let register = async |trim: &TrimService| {
        let body = json!({"ID": trim.id, "Name": "trim_service", "Address": "127.0.0.1",
            "Port": trim.grpc.port()});
        consul
            .put("/v1/agent/service/register", &body)
            .await
            .unwrap();
    };
    for trim in &trims {
        register(trim).await;
    }
    let etcd_url = format!("{}/services?layout=gokit", etcd.url());
    let add = add_service(&["--registry", &consul.url(), "--registry", &etcd_url])
        .await
        .unwrap();
    let http = Http::new(&add);
    http.until_ready(3).await;
    let calls = Calls::start(&http);
    let ids: Vec<_> = trims.iter().map(|trim| &*trim.id).collect();
    calls.reach(&ids).await;
    let before = all_connections(&trims);
    assert!(before.iter().all(|ports| !ports.is_empty()), "{before:?}");

    for trim in &trims {
        let address = trim.grpc.to_string();
        etcd.put(&format!("/services/trim_service/{address}"), &address)
            .await
            .unwrap();
    }
    calls.more(100).await;
    for trim in &trims {
        let path = format!("/v1/agent/service/deregister/{}", trim.id);
        consul.put(&path, &Value::Null).await.unwrap();
        calls.more(30).await;
    }
    calls.reach(&ids).await;
    consul.kill().await.unwrap();
    calls.more(100).await;
    calls.reach(&ids).await;
    assert_eq!(all_connections(&trims), before, "a connection was replaced");

    // From now on etcd alone decides.
    let gone = trims[0].grpc.to_string();
    etcd.delete(&format!("/services/trim_service/{gone}"))
        .await
        .unwrap();
    calls.leave(&trims[0].id).await;
    let closed = async || match connections(trims[0].grpc.port()) {
        ports if ports.is_empty() => Ok(()),
        ports => Err(ports),
    };
    eventually("its connections are closed", LIMIT, closed)
        .await
        .unwrap();
    calls.end().await;
}
