//! Registrations.

use std::time::{Duration, Instant};

use discovery::{
    InstanceHealth, RegistrationState,
    registry::{self, Check, Query, RegistryError},
};
use serde_json::{Value, json};

use crate::{
    LIMIT, SERVICE, children, client, nodes,
    proxy::Proxy,
    register, registered,
    sets::{eventually, ids, registration, until, within},
    start, until_registered, watch,
};

const ID: &str = "trim_service-127.0.0.1-8975";

/// The node that a registration with [`ID`] makes.
fn path() -> String {
    format!("{SERVICE}/{ID}")
}

/// The shortest session that the server grants is 1 s.
fn ttl(seconds: u64) -> Check {
    Check::ttl(Duration::from_secs(seconds))
}

#[tokio::test]
async fn what_was_registered_is_seen_and_gone_once_deregistered() {
    let Some(server) = start().await else { return };
    let (_watch, mut sets) = watch(&server.url());
    until(&mut sets, |set| set.confirmed.is_some()).await;
    let mut wanted = registration(8975, Check::Default);
    wanted.instance = wanted
        .instance
        .with_tags(["blue", "fast"])
        .with_meta([("version", "2")])
        .with_weight(7)
        .with_zone("a");
    let client = client(&server.url(), wanted.clone());
    let begun = Instant::now();
    register(&*client).await;
    let set = until(&mut sets, |set| !set.instances.is_empty()).await;
    eprintln!("registered and seen after {:?}", begun.elapsed());
    let expected = wanted.instance.with_health(InstanceHealth::Passing);
    assert_eq!(*set.instances[0], expected);
    let data = server.client().await.unwrap().get(&path()).await.unwrap();
    let node: Value = serde_json::from_slice(&data).unwrap();
    assert_eq!(
        (&node["id"], &node["serviceType"]),
        (&json!(ID), &json!("DYNAMIC"))
    );
    // Repeating the call changes nothing.
    register(&*client).await;
    assert_eq!(
        server.client().await.unwrap().get(&path()).await.unwrap(),
        data
    );
    let begun = Instant::now();
    client.deregister().await.unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
    eprintln!("deregistered and gone after {:?}", begun.elapsed());
    client.deregister().await.unwrap();
}

#[tokio::test]
async fn an_instance_whose_process_was_killed_goes_with_its_session() {
    let Some(server) = start().await else { return };
    let client = client(&server.url(), registration(8975, ttl(2)));
    register(&*client).await;
    assert_eq!(nodes(&server).await, [ID]);
    // Its connection ends without a word, as that of a killed process does.
    let begun = Instant::now();
    drop(client);
    eventually("gone", async || {
        nodes(&server).await.is_empty().then_some(())
    })
    .await;
    eprintln!(
        "gone {:?} after the end of a process with a session of 2 s",
        begun.elapsed()
    );
    assert!(begun.elapsed() > Duration::from_secs(1));
}

#[tokio::test]
async fn the_node_of_a_killed_predecessor_is_replaced() {
    let Some(server) = start().await else { return };
    let ghost = client(&server.url(), registration(8975, ttl(3)));
    register(&*ghost).await;
    // Its session ends after the ghost's.
    let marker = client(&server.url(), registration(1, ttl(3)));
    register(&*marker).await;
    drop((ghost, marker));
    let successor = client(&server.url(), registration(8975, Check::Default));
    let registrar = registered(successor).await;
    assert_eq!(nodes(&server).await.len(), 2);
    eventually("the sessions of the killed to end", async || {
        (nodes(&server).await.len() < 2).then_some(())
    })
    .await;
    assert_eq!(nodes(&server).await, [ID]);
    assert!(registrar.state().borrow().is_registered());
    registrar.deregister(LIMIT).await.unwrap();
    assert!(nodes(&server).await.is_empty());
}

#[tokio::test]
async fn a_node_that_was_deleted_or_changed_is_made_anew() {
    let Some(server) = start().await else { return };
    let registrar = registered(client(&server.url(), registration(8975, Check::Default))).await;
    let mut operator = server.client().await.unwrap();
    let data = operator.get(&path()).await.unwrap();
    operator.delete(&path()).await.unwrap();
    let begun = Instant::now();
    let again = async || {
        operator
            .get(&path())
            .await
            .is_ok_and(|now| now == data)
            .then_some(())
    };
    eventually("registered again", again).await;
    eprintln!(
        "registered again {:?} after the node was deleted",
        begun.elapsed()
    );
    let mut operator = server.client().await.unwrap();
    operator.put(&path(), b"changed").await.unwrap();
    let again = async || {
        operator
            .get(&path())
            .await
            .is_ok_and(|now| now == data)
            .then_some(())
    };
    eventually("its data written again", again).await;
    until_registered(&registrar).await;
}

#[tokio::test]
async fn a_registration_survives_restarts_of_the_server() {
    let Some(mut server) = start().await else {
        return;
    };
    let registrar = registered(client(&server.url(), registration(8975, Check::Default))).await;
    server.kill().await.unwrap();
    let mut state = registrar.state();
    let lost = state.wait_for(|state| !state.is_registered());
    within(LIMIT, lost).await.unwrap();
    server.restart().await.unwrap();
    until_registered(&registrar).await;
    // The session is the same: the node was there all the time.
    assert_eq!(nodes(&server).await, [ID]);
    server.kill().await.unwrap();
    server.restart_wiped().await.unwrap();
    let begun = Instant::now();
    eventually("registered again", async || {
        (nodes(&server).await == [ID]).then_some(())
    })
    .await;
    eprintln!(
        "registered again {:?} after a wiped server was back",
        begun.elapsed()
    );
    until_registered(&registrar).await;
    registrar.deregister(LIMIT).await.unwrap();
    assert!(nodes(&server).await.is_empty());
}

#[tokio::test]
async fn an_expired_session_is_replaced() {
    let Some(server) = start().await else { return };
    let proxy = Proxy::start(server.address()).await;
    let url = format!("zookeeper://{}", proxy.address);
    let registrar = registered(client(&url, registration(8975, ttl(2)))).await;
    let mut other = server.client().await.unwrap();
    // The network breaks for longer than the session lasts.
    proxy.stall(true);
    eventually("expired", async || {
        children(&mut other).await.is_empty().then_some(())
    })
    .await;
    let mut state = registrar.state();
    let lost = state.wait_for(|state| !state.is_registered());
    within(LIMIT, lost).await.unwrap();
    proxy.stall(false);
    let begun = Instant::now();
    eventually("registered again", async || {
        (nodes(&server).await == [ID]).then_some(())
    })
    .await;
    eprintln!(
        "registered again {:?} after the network was back",
        begun.elapsed()
    );
    until_registered(&registrar).await;
}

#[tokio::test]
async fn a_session_goes_on_with_another_server() {
    let Some(server) = start().await else { return };
    // Two ways to one server, as to two servers of an ensemble.
    let (first, second) = (
        Proxy::start(server.address()).await,
        Proxy::start(server.address()).await,
    );
    second.stall(true);
    let url = format!("zookeeper://{},{}", first.address, second.address);
    let registrar = registered(client(&url, registration(8975, ttl(3)))).await;
    let (_watch, mut sets) = watch(&format!("{url}?session_timeout=3s"));
    until(&mut sets, |set| set.confirmed.is_some()).await;
    // Its session ends, because it knows the first only.
    let url = format!("zookeeper://{}", first.address);
    let marker = client(&url, registration(1, ttl(3)));
    register(&*marker).await;
    until(&mut sets, |set| set.instances.len() == 2).await;
    let mut state = registrar.state();
    state.mark_unchanged();
    second.stall(false);
    first.stall(true);
    let set = until(&mut sets, |set| set.instances.len() < 2).await;
    let confirmed = async || (sets.borrow().confirmed > set.confirmed).then_some(());
    eventually("confirmed again", confirmed).await;
    assert_eq!(ids(&sets.borrow()), [ID]);
    assert!(sets.borrow().error.is_none());
    assert!(!state.has_changed().unwrap());
    assert_eq!(nodes(&server).await, [ID]);
    registrar.deregister(LIMIT).await.unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
}

#[tokio::test]
async fn a_server_that_hangs_for_less_than_the_session_loses_nothing() {
    let Some(server) = start().await else { return };
    let registrar = registered(client(&server.url(), registration(8975, ttl(4)))).await;
    let (_watch, mut sets) = watch(&server.url());
    until(&mut sets, |set| ids(set) == [ID]).await;
    server.pause().unwrap();
    let mut state = registrar.state();
    let lost = state.wait_for(|state| !state.is_registered());
    let lost = within(LIMIT, lost).await.unwrap().clone();
    let RegistrationState::Registering(Some(error)) = lost else {
        panic!("{lost:?}");
    };
    assert!(
        matches!(*error, RegistryError::Unreachable { .. }),
        "{error}"
    );
    server.resume().unwrap();
    until_registered(&registrar).await;
    until(&mut sets, |set| set.error.is_none() && ids(set) == [ID]).await;
    registrar.deregister(LIMIT).await.unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused_with_the_reason() {
    let zookeeper = registry::connect("zookeeper://localhost").unwrap();
    let refused = |registration| {
        let refused = zookeeper.registration(registration).map(|_| ());
        refused.unwrap_err().to_string()
    };
    let grpc = refused(registration(8975, Check::grpc()));
    assert!(grpc.contains("ZooKeeper has no checks"), "{grpc}");
    let mut slash = registration(8975, Check::Default);
    slash.instance.id = "a/b".to_owned();
    let said = refused(slash);
    assert!(said.contains("the ID contains '/'"), "{said}");
    let mut large = registration(8975, Check::Default);
    large.instance = large.instance.with_meta([("key", "x".repeat(1 << 20))]);
    assert!(refused(large).contains("over 512 KiB"));
    let datacenter = Query::new("trim_service").with_datacenter("dc2");
    let said = zookeeper.instancer(&datacenter).map(|_| ()).unwrap_err();
    assert!(said.to_string().contains("has no datacenters"), "{said}");

    let Some(server) = start().await else { return };
    let mut operator = server.client().await.unwrap();
    operator.put(&path(), b"by hand").await.unwrap();
    let client = client(&server.url(), registration(8975, Check::Default));
    let said = client.register().await.unwrap_err().to_string();
    assert!(said.contains("the persistent node"), "{said}");
    client.deregister().await.unwrap();
    assert_eq!(operator.get(&path()).await.unwrap(), b"by hand");
}

#[tokio::test]
async fn deregistering_removes_the_node_of_a_killed_process() {
    let Some(server) = start().await else { return };
    let killed = client(&server.url(), registration(8975, Check::Default));
    register(&*killed).await;
    drop(killed);
    let next = client(&server.url(), registration(8975, Check::Default));
    next.deregister().await.unwrap();
    assert!(nodes(&server).await.is_empty());
}

#[tokio::test]
async fn a_registration_in_go_kits_layout_is_an_address() {
    let Some(server) = start().await else { return };
    let url = format!("{}/other/base?layout=gokit", server.url());
    let registrar = registered(client(&url, registration(8975, Check::Default))).await;
    let mut other = server.client().await.unwrap();
    let node = format!("/other/base/trim_service/{ID}");
    assert_eq!(other.get(&node).await.unwrap(), b"127.0.0.1:8975");
    let (_watch, mut sets) = watch(&url);
    until(&mut sets, |set| ids(set) == [ID]).await;
    registrar.deregister(LIMIT).await.unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
}
