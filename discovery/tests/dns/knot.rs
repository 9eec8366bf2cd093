//! A real DNS server whose records change at run time.

use std::time::Duration;

use testkit::registries::{Knot, Server, ZONE};

use crate::{addresses, sets::until, watch};

const OWNER: &str = "_trim._tcp";

async fn start() -> Option<Server<Knot>> {
    Server::start(Knot).await.unwrap()
}

fn srv(ports: impl IntoIterator<Item = u16>) -> Vec<String> {
    ports
        .into_iter()
        .map(|port| format!("SRV 0 1 {port} ns"))
        .collect()
}

#[tokio::test]
async fn records_are_seen_as_they_come_change_and_go() {
    let Some(server) = start().await else { return };
    let (_watch, mut sets) = watch(&format!("{}/{OWNER}.{ZONE}", server.url()));
    // NXDOMAIN.
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert!(set.instances.is_empty() && set.error.is_none());
    server
        .set_records(OWNER, 0, &srv(8000..8200))
        .await
        .unwrap();
    // Over UDP, they do not fit.
    let set = until(&mut sets, |set| set.instances.len() == 200).await;
    assert_eq!(set.instances[0].id, "127.0.0.1:8000");
    let weighted = ["SRV 1 5 8000 ns", "SRV 2 1 8001 ns", "SRV 1 0 8002 NS"].map(str::to_owned);
    server
        .set_records(OWNER, i32::MAX.cast_unsigned(), &weighted)
        .await
        .unwrap();
    let set = until(&mut sets, |set| set.instances.len() == 2).await;
    assert_eq!(addresses(&set), ["127.0.0.1:8000", "127.0.0.1:8002"]);
    assert_eq!(set.instances[0].weight, 5);
}

#[tokio::test]
async fn a_name_without_records_of_the_kind_is_empty() {
    let Some(server) = start().await else { return };
    server
        .set_records(OWNER, 0, &["TXT t".to_owned()])
        .await
        .unwrap();
    let (_watch, mut sets) = watch(&format!("{}/{OWNER}.{ZONE}", server.url()));
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert!(set.instances.is_empty() && set.error.is_none());
    server.set_records(OWNER, 0, &srv([8000])).await.unwrap();
    until(&mut sets, |set| set.instances.len() == 1).await;
    // The target is an alias, which the RFC forbids and zones have.
    server
        .set_records("alias", 0, &["CNAME ns".to_owned()])
        .await
        .unwrap();
    server
        .set_records(OWNER, 0, &["SRV 0 1 8001 alias".to_owned()])
        .await
        .unwrap();
    until(&mut sets, |set| addresses(set) == ["127.0.0.1:8001"]).await;
    server
        .set_records(OWNER, 0, &["SRV 0 0 0 .".to_owned()])
        .await
        .unwrap();
    let set = until(&mut sets, |set| set.instances.is_empty()).await;
    assert!(set.error.is_none());
}

#[tokio::test]
async fn addresses_of_a_name_are_instances() {
    let Some(server) = start().await else { return };
    let both = ["A 127.0.0.2", "A 127.0.0.1", "AAAA ::1"].map(str::to_owned);
    server.set_records("trim", 0, &both).await.unwrap();
    let url = format!("dns+a://{}/trim.{ZONE}:8975", server.address());
    let (_watch, mut sets) = watch(&url);
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(
        addresses(&set),
        ["127.0.0.1:8975", "127.0.0.2:8975", "[::1]:8975"]
    );
    // An alias, over whose end the server knows too.
    server.set_records("trim", 0, &[]).await.unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
    server
        .set_records("trim", 0, &["CNAME ns".to_owned()])
        .await
        .unwrap();
    until(&mut sets, |set| addresses(set) == ["127.0.0.1:8975"]).await;
}

#[tokio::test]
async fn a_stopped_or_killed_server_leaves_the_last_set() {
    let Some(mut server) = start().await else {
        return;
    };
    server.set_records(OWNER, 0, &srv([8000])).await.unwrap();
    let url = format!("{}/{OWNER}.{ZONE}?timeout=500ms", server.url());
    let (_watch, mut sets) = watch(&url);
    until(&mut sets, |set| set.instances.len() == 1).await;
    server.pause().unwrap();
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(set.instances.len(), 1);
    server.resume().unwrap();
    until(&mut sets, |set| set.error.is_none()).await;
    server.kill().await.unwrap();
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(set.instances.len(), 1);
    server.restart().await.unwrap();
    let back = until(&mut sets, |set| set.error.is_none()).await;
    assert_eq!(back.instances.len(), 1);
    assert!(back.confirmed.unwrap().elapsed() < Duration::from_secs(60));
    // A name of no zone of this server is refused.
    let (_watch, mut sets) = watch(&format!("{}/_a._tcp.example.org", server.url()));
    let set = until(&mut sets, |set| set.error.is_some()).await;
    let error = set.error.unwrap().to_string();
    assert!(error.contains("REFUSED"), "{error}");
}
