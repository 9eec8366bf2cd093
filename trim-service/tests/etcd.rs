//! The trim service's binary with a real etcd: registration, and its end in order and by a crash.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use testkit::{
    Signal, TrimService, eventually,
    registries::{Etcd, Server},
    trim_service,
};

use crate::support::LIMIT;

/// Starts a service that registers in etcd's own layout, and waits until its entry is there.
async fn registered(etcd: &Server<Etcd>) -> (TrimService, String) {
    let url = format!("{}?layout=grpc", etcd.url());
    let service = trim_service(&[
        "--registry",
        &url,
        "--check",
        "ttl",
        "--check-interval",
        "2s",
        "--tag",
        "blue",
        "--drain",
        "0s",
    ])
    .await
    .unwrap();
    let key = format!("services/trim_service/{}", service.grpc);
    let entry = async || {
        let entries = etcd.list("services/").await.ok()?;
        let found = entries.into_iter().find(|(found, _)| *found == key)?;
        Some(found.1)
    };
    let value = eventually("the entry", LIMIT, entry).await.unwrap().0;
    (service, value)
}

async fn until_gone(etcd: &Server<Etcd>) {
    let gone = async || {
        let entries = etcd.list("services/").await?;
        anyhow::ensure!(entries.is_empty(), "{entries:?}");
        Ok(())
    };
    eventually("no entry", LIMIT, gone).await.unwrap();
}

#[tokio::test]
async fn it_is_in_etcd_until_it_is_asked_to_end() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let (mut service, value) = registered(&etcd).await;
    assert!(
        value.contains(&service.id) && value.contains("blue"),
        "{value}"
    );
    service.process.signal(Signal::SIGTERM).unwrap();
    let status = service.process.exit(LIMIT).await.unwrap();
    assert!(status.success(), "{status}");
    // It was deregistered before it ended, not by the end of its lease.
    assert!(etcd.list("services/").await.unwrap().is_empty());
}

#[tokio::test]
async fn after_a_crash_its_lease_ends() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let (mut service, _) = registered(&etcd).await;
    service.process.signal(Signal::SIGKILL).unwrap();
    service.process.exit(LIMIT).await.unwrap();
    until_gone(&etcd).await;
}
