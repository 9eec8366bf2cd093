//! Watches.

use std::time::{Duration, Instant};

use discovery::{InstanceHealth, registry::RegistryError};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    SERVICE,
    sets::{eventually, ids, until},
    start, watch,
};

/// A node as Curator writes it.
fn node(port: u32) -> Vec<u8> {
    let node = json!({"name": "trim_service", "address": "127.0.0.1", "port": port});
    node.to_string().into_bytes()
}

#[tokio::test]
async fn nodes_are_seen_as_they_come_change_and_go() {
    let Some(server) = start().await else { return };
    let mut other = server.client().await.unwrap();
    let (_watch, mut sets) = watch(&server.url());
    // Neither the service nor the base path exists.
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert!(set.instances.is_empty() && set.error.is_none());
    // Twice: a path that was deleted is watched again.
    for _ in 0..2 {
        other.put(&format!("{SERVICE}/a"), &node(1)).await.unwrap();
        until(&mut sets, |set| ids(set) == ["a"]).await;
        other.put(&format!("{SERVICE}/b"), &node(2)).await.unwrap();
        until(&mut sets, |set| ids(set) == ["a", "b"]).await;
        let out_of_service = json!({
            "address": "127.0.0.1", "port": 3,
            "payload": {"metadata": {"instance_status": "OUT_OF_SERVICE"}},
        });
        let data = out_of_service.to_string();
        other
            .put(&format!("{SERVICE}/a"), data.as_bytes())
            .await
            .unwrap();
        let set = until(&mut sets, |set| set.instances[0].port == 3).await;
        assert_eq!(set.instances[0].health, InstanceHealth::Critical);
        other.delete(&format!("{SERVICE}/a")).await.unwrap();
        until(&mut sets, |set| ids(set) == ["b"]).await;
        other.delete(&format!("{SERVICE}/b")).await.unwrap();
        other.delete(SERVICE).await.unwrap();
        let set = until(&mut sets, |set| set.instances.is_empty()).await;
        assert!(set.error.is_none());
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_used_hides_no_other() {
    let Some(server) = start().await else { return };
    let mut other = server.client().await.unwrap();
    let bad: [&[u8]; 6] = [
        b"",
        b"not JSON",
        b"null",
        br#"{"address":null,"port":1}"#,
        br#"{"address":"10.0.0.1","port":null}"#,
        br#"{"address":"0.0.0.0","port":70000}"#,
    ];
    for (nth, data) in bad.iter().enumerate() {
        other
            .put(&format!("{SERVICE}/bad-{nth}"), data)
            .await
            .unwrap();
    }
    other
        .put(&format!("{SERVICE}/good"), &node(1))
        .await
        .unwrap();
    let (_watch, mut sets) = watch(&server.url());
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(ids(&set), ["good"]);
    // One that is repaired is used.
    other
        .put(&format!("{SERVICE}/bad-0"), &node(2))
        .await
        .unwrap();
    until(&mut sets, |set| ids(set) == ["bad-0", "good"]).await;
}

#[tokio::test]
async fn go_kits_nodes_are_read() {
    let Some(server) = start().await else { return };
    let mut other = server.client().await.unwrap();
    let name = "_c_4d32d6e5ab88420c51c669b6c4a6e5f8-0000000000";
    for (name, data) in [
        (name, "127.0.0.1:8975"),
        ("bad", "127.0.0.1"),
        ("own", "[::1]:1"),
    ] {
        other
            .put(&format!("{SERVICE}/{name}"), data.as_bytes())
            .await
            .unwrap();
    }
    let (_watch, mut sets) = watch(&format!("{}?layout=gokit", server.url()));
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(ids(&set), ["127.0.0.1:8975", "own"]);
}

#[tokio::test]
async fn a_thousand_instances_are_read_and_followed() {
    let Some(server) = start().await else { return };
    let mut other = server.client().await.unwrap();
    for nth in 0..1000 {
        let path = format!("{SERVICE}/i{nth:04}");
        other.put(&path, &node(1 + nth)).await.unwrap();
    }
    let begun = Instant::now();
    let (_watch, mut sets) = watch(&server.url());
    until(&mut sets, |set| set.instances.len() == 1000).await;
    eprintln!("1000 instances were read in {:?}", begun.elapsed());
    let begun = Instant::now();
    other
        .put(&format!("{SERVICE}/i0500"), &node(2000))
        .await
        .unwrap();
    until(&mut sets, |set| set.instances[500].port == 2000).await;
    eprintln!("a change of one was seen after {:?}", begun.elapsed());
    for nth in 0..1000 {
        other.delete(&format!("{SERVICE}/i{nth:04}")).await.unwrap();
    }
    until(&mut sets, |set| set.instances.is_empty()).await;
}

#[tokio::test]
async fn the_last_set_is_kept_while_the_server_is_down() {
    let Some(mut server) = start().await else {
        return;
    };
    let mut other = server.client().await.unwrap();
    other.put(&format!("{SERVICE}/a"), &node(1)).await.unwrap();
    let (_watch, mut sets) = watch(&server.url());
    until(&mut sets, |set| ids(set) == ["a"]).await;
    server.kill().await.unwrap();
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(ids(&set), ["a"]);
    let error = set.error.unwrap();
    assert!(
        matches!(*error, RegistryError::Unreachable { .. }),
        "{error}"
    );
    // With its data.
    server.restart().await.unwrap();
    let set = until(&mut sets, |set| set.error.is_none()).await;
    assert_eq!(ids(&set), ["a"]);
    let mut other = server.client().await.unwrap();
    other.put(&format!("{SERVICE}/b"), &node(2)).await.unwrap();
    until(&mut sets, |set| ids(set) == ["a", "b"]).await;
    // Without its data: a good, empty answer, and the new state is followed.
    server.kill().await.unwrap();
    until(&mut sets, |set| set.error.is_some()).await;
    server.restart_wiped().await.unwrap();
    let set = until(&mut sets, |set| set.error.is_none()).await;
    assert!(set.instances.is_empty());
    let mut other = server.client().await.unwrap();
    other.put(&format!("{SERVICE}/c"), &node(3)).await.unwrap();
    until(&mut sets, |set| ids(set) == ["c"]).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed() {
    let Some(server) = start().await else { return };
    let mut other = server.client().await.unwrap();
    other.put(&format!("{SERVICE}/a"), &node(1)).await.unwrap();
    let (_watch, mut sets) = watch(&format!("{}?session_timeout=3s", server.url()));
    until(&mut sets, |set| ids(set) == ["a"]).await;
    server.pause().unwrap();
    let begun = Instant::now();
    let set = until(&mut sets, |set| set.error.is_some()).await;
    eprintln!("a hanging server was noticed after {:?}", begun.elapsed());
    assert_eq!(ids(&set), ["a"]);
    server.resume().unwrap();
    until(&mut sets, |set| set.error.is_none()).await;
    let mut other = server.client().await.unwrap();
    other.put(&format!("{SERVICE}/b"), &node(2)).await.unwrap();
    until(&mut sets, |set| ids(set) == ["a", "b"]).await;
}

#[tokio::test]
async fn another_server_is_used_if_one_does_not_answer() {
    let Some(server) = start().await else { return };
    // Accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let address = server.address();
    let url = format!("zookeeper://127.0.0.1:1,{silent},{address}?session_timeout=2s");
    let (_watch, mut sets) = watch(&url);
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert!(set.error.is_none());
}

#[tokio::test]
async fn the_set_is_confirmed_in_quiet_times() {
    let Some(server) = start().await else { return };
    let (_watch, mut sets) = watch(&server.url());
    let first = until(&mut sets, |set| set.confirmed.is_some()).await;
    let confirmed = eventually("confirmed again", async || {
        let confirmed = sets.borrow().confirmed;
        (confirmed > first.confirmed).then_some(confirmed)
    });
    let between = confirmed.await.unwrap() - first.confirmed.unwrap();
    eprintln!("confirmed again after {between:?}");
    assert!(between >= Duration::from_secs(4), "{between:?}");
}
