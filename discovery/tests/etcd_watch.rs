//! The watch of services in a real etcd.

#![cfg(feature = "etcd")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod etcd_servers;
mod sets;

use std::{sync::Arc, time::Duration};

use discovery::{
    InstanceHealth,
    registry::{
        Instancer, Query, Registry as _, RegistryError,
        etcd::{Config, Etcd, Layout},
    },
};
use testkit::registries::{Etcd as Launched, Server};
use tokio::net::TcpListener;

use crate::{
    etcd_servers::{Cluster, put_with_lease},
    sets::{eventually, ids, until},
};

const A: &str = "/services/trim_service/127.0.0.1:8975";
const A_ID: &str = "trim_service-127.0.0.1-8975";
const B: &str = "/services/trim_service/127.0.0.1:8976";
const B_ID: &str = "trim_service-127.0.0.1-8976";

/// Short intervals, so that tests do not wait for long.
fn config(endpoints: &[String]) -> Config {
    Config::new(endpoints)
        .with_confirm_interval(Duration::from_millis(300))
        .with_request_timeout(Duration::from_secs(2))
        .with_connect_timeout(Duration::from_secs(2))
}

fn watch_of(config: &Config) -> Arc<dyn Instancer> {
    let etcd = Etcd::new(config).unwrap();
    etcd.instancer(&Query::new("trim_service")).unwrap()
}

#[tokio::test]
async fn follows_instances_as_they_come_change_and_go() {
    let Some(etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    let instancer = watch_of(&config(&[etcd.address()]));
    let mut sets = instancer.watch();
    // A service without entries is empty, not an error.
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(ids(&set), [""; 0]);
    assert!(set.error.is_none());

    etcd.put(A, "127.0.0.1:8975").await.unwrap();
    let alone = until(&mut sets, |set| ids(set) == [A_ID]).await;
    // Another service whose name begins with this one's.
    let other = "/services/trim_service2/127.0.0.1:1";
    etcd.put(other, "127.0.0.1:1").await.unwrap();
    // An equal value makes a new revision, but no new set.
    sets.borrow_and_update();
    etcd.put(A, "127.0.0.1:8975").await.unwrap();
    etcd.put(B, "127.0.0.1:8976").await.unwrap();
    sets.changed().await.unwrap();
    let both = sets.borrow_and_update().clone();
    assert_eq!(ids(&both), [A_ID, B_ID]);
    assert!(
        Arc::ptr_eq(&alone.instances[0], &both.instances[0]),
        "an unchanged instance keeps its allocation"
    );
    etcd.delete(A).await.unwrap();
    until(&mut sets, |set| ids(set) == [B_ID]).await;
    etcd.delete(B).await.unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
}

#[tokio::test]
async fn reads_the_entries_of_both_layouts_and_names_those_that_it_cannot_use() {
    let Some(etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    let json = r#"{"Op":0,"Addr":"127.0.0.1:8976","Metadata":{"zone":"a","weight":3,"v":1}}"#;
    for (end, value) in [
        ("go-kit", "127.0.0.1:8975"),
        ("deeper/grpc", json),
        ("nowhere", "127.0.0.1:0"),
        ("broken", "{\"Op\":0,"),
        ("empty", ""),
    ] {
        let key = format!("/services/trim_service/{end}");
        etcd.put(&key, value).await.unwrap();
    }
    let binary = "/services/trim_service/binary";
    etcd.put(binary, [0xff, 0x00]).await.unwrap();
    put_with_lease(&etcd, "/services/trim_service/leased", "127.0.0.1:8977").await;
    let instancer = watch_of(&config(&[etcd.address()]));
    let set = until(&mut instancer.watch(), |set| set.confirmed.is_some()).await;
    assert_eq!(ids(&set), [A_ID, B_ID, "trim_service-127.0.0.1-8977"]);
    let [_, grpc, leased] = &*set.instances else {
        panic!("{set:?}")
    };
    assert_eq!((grpc.zone.as_deref(), grpc.weight), (Some("a"), 3));
    assert_eq!(grpc.meta["v"], "1");
    assert_eq!(grpc.health, InstanceHealth::Unknown);
    assert_eq!(leased.health, InstanceHealth::Passing);
}

#[tokio::test]
async fn a_query_finds_the_instances_with_all_its_tags() {
    let Some(etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    for (port, tags) in [(1, r#"["blue","canary"]"#), (2, r#"["blue"]"#)] {
        let value = format!(
            r#"{{"Op":0,"Addr":"127.0.0.1:{port}","Metadata":{{"tags":{tags},"datacenter":"dc{port}"}}}}"#
        );
        let key = format!("naming/trim_service/{port}");
        etcd.put(&key, value).await.unwrap();
    }
    let config = config(&[etcd.address()]).with_prefix("naming");
    let grpc = Etcd::new(&config.clone().with_layout(Layout::Grpc)).unwrap();
    let query = Query::new("trim_service");
    for (query, found) in [
        (query.clone().with_tags(["blue"]), 2),
        (query.clone().with_tags(["canary", "blue"]), 1),
        (query.clone().with_datacenter("dc2"), 1),
    ] {
        let instancer = grpc.instancer(&query).unwrap();
        let set = until(&mut instancer.watch(), |set| set.confirmed.is_some()).await;
        assert_eq!(set.instances.len(), found, "{query:?}");
    }
    let gokit = Etcd::new(&config.with_layout(Layout::GoKit)).unwrap();
    for query in [
        query.clone().with_tags(["blue"]),
        query.clone().with_datacenter("dc2"),
        Query::new(""),
    ] {
        let refused = gokit.instancer(&query).map(|_| ());
        assert!(
            matches!(refused, Err(RegistryError::InvalidSetting { .. })),
            "{query:?}"
        );
    }
}

#[tokio::test]
async fn an_outage_keeps_the_set_and_ends_by_itself() {
    let Some(mut etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    etcd.put(A, "127.0.0.1:8975").await.unwrap();
    let instancer = watch_of(&config(&[etcd.address()]));
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == [A_ID]).await;
    etcd.kill().await.unwrap();
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(ids(&set), [A_ID]);
    let error = set.error.unwrap();
    assert!(error.is_transient(), "{error}");
    etcd.restart().await.unwrap();
    let set = until(&mut sets, |set| set.error.is_none()).await;
    assert_eq!(ids(&set), [A_ID]);
    etcd.put(B, "127.0.0.1:8976").await.unwrap();
    until(&mut sets, |set| ids(set) == [A_ID, B_ID]).await;
}

#[tokio::test]
async fn a_server_that_lost_its_data_is_followed_from_its_first_revision() {
    let Some(mut etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    for port in 8975..9075 {
        let key = format!("/services/trim_service/127.0.0.1:{port}");
        etcd.put(&key, format!("127.0.0.1:{port}")).await.unwrap();
    }
    let instancer = watch_of(&config(&[etcd.address()]));
    let mut sets = instancer.watch();
    until(&mut sets, |set| set.instances.len() == 100).await;
    etcd.kill().await.unwrap();
    etcd.restart_wiped().await.unwrap();
    until(&mut sets, |set| {
        set.error.is_none() && set.instances.is_empty()
    })
    .await;
    // The revision is far below the one known, at which a mere resumption would wait.
    etcd.put(B, "127.0.0.1:8976").await.unwrap();
    until(&mut sets, |set| ids(set) == [B_ID]).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_and_followed_again() {
    let Some(etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    etcd.put(A, "127.0.0.1:8975").await.unwrap();
    let instancer = watch_of(&config(&[etcd.address()]));
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == [A_ID]).await;
    etcd.pause().unwrap();
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(ids(&set), [A_ID]);
    assert!(matches!(
        *set.error.unwrap(),
        RegistryError::Unreachable { .. }
    ));
    etcd.resume().unwrap();
    until(&mut sets, |set| set.error.is_none()).await;
    etcd.put(B, "127.0.0.1:8976").await.unwrap();
    until(&mut sets, |set| ids(set) == [A_ID, B_ID]).await;
}

#[tokio::test]
async fn a_set_without_changes_is_confirmed_again_and_again() {
    let Some(etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    etcd.put(A, "127.0.0.1:8975").await.unwrap();
    let instancer = watch_of(&config(&[etcd.address()]));
    let mut sets = instancer.watch();
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    sets.borrow_and_update();
    let first = set.confirmed.unwrap();
    eventually("a later confirmation", async || {
        let now = sets.borrow().confirmed.unwrap();
        (now > first + Duration::from_millis(600)).then_some(())
    })
    .await;
    assert!(!sets.has_changed().unwrap(), "an equal set was published");
}

#[tokio::test]
async fn a_member_that_does_not_answer_is_passed_over() {
    let Some(etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    etcd.put(A, "127.0.0.1:8975").await.unwrap();
    // One refuses connections, the other accepts them and says nothing.
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = refused.local_addr().unwrap().to_string();
    drop(refused);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung = silent.local_addr().unwrap().to_string();
    let config = config(&[closed.clone(), hung, etcd.address()])
        .with_connect_timeout(Duration::from_millis(500));
    let instancer = watch_of(&config);
    let set = until(&mut instancer.watch(), |set| set.confirmed.is_some()).await;
    assert_eq!(ids(&set), [A_ID]);

    let nowhere = watch_of(&self::config(std::slice::from_ref(&closed)));
    let set = until(&mut nowhere.watch(), |set| set.error.is_some()).await;
    let said = discovery::chain(&*set.error.unwrap());
    assert!(said.contains(&closed), "{said}");
}

#[tokio::test]
async fn a_watch_goes_on_when_its_member_dies_or_loses_the_others() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let addresses = cluster.addresses();
    let instancer = watch_of(&config(&addresses));
    let mut sets = instancer.watch();
    until(&mut sets, |set| set.confirmed.is_some()).await;
    // Whichever member it is connected to dies in one of the rounds.
    for round in 0..3_u16 {
        let member = usize::from(round);
        cluster.members[member].kill().await.unwrap();
        let port = 9000 + round;
        let key = format!("/services/trim_service/127.0.0.1:{port}");
        let writer = &cluster.members[(member + 1) % 3];
        etcd_servers::put(writer, &key, &format!("127.0.0.1:{port}")).await;
        let id = format!("trim_service-127.0.0.1-{port}");
        until(&mut sets, |set| {
            set.error.is_none() && ids(set).contains(&id.as_str())
        })
        .await;
        cluster.members[member].restart().await.unwrap();
    }
    // A member that is cut off from the others has no leader, and says so.
    let alone = watch_of(&config(&addresses[..1]));
    let mut alone = alone.watch();
    until(&mut alone, |set| set.confirmed.is_some()).await;
    for member in &cluster.members[1..] {
        member.pause().unwrap();
    }
    let set = until(&mut alone, |set| set.error.is_some()).await;
    assert_eq!(set.instances.len(), 3);
    for member in &cluster.members[1..] {
        member.resume().unwrap();
    }
    until(&mut alone, |set| set.error.is_none()).await;
}

#[tokio::test]
async fn a_thousand_instances_come_and_go() {
    let Some(etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    let lease = etcd_servers::lease(&etcd, 600).await;
    let instancer = watch_of(&config(&[etcd.address()]));
    let mut sets = instancer.watch();
    until(&mut sets, |set| set.confirmed.is_some()).await;
    etcd_servers::put_many(&etcd, 1000, &lease).await;
    until(&mut sets, |set| set.instances.len() == 1000).await;
    // A new watch reads all of them at once.
    let late = watch_of(&config(&[etcd.address()]).with_change_interval(Duration::from_secs(1)));
    until(&mut late.watch(), |set| set.instances.len() == 1000).await;
    etcd_servers::revoke(&etcd, &lease).await;
    until(&mut sets, |set| set.instances.is_empty()).await;
}
