//! Registrations with a real etcd, and their recovery.

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
    Registrar, RegistrationState,
    registry::{self, Check, Query, Registration, RegistrationClient, RegistryError},
};
use testkit::registries::{Etcd, Server};
use tokio::time::Instant;

use crate::{
    etcd_servers::entry,
    sets::{eventually, ids, registration, until, within},
};

const KEY: &str = "/services/trim_service/127.0.0.1:8975";

fn client(url: &str, registration: Registration) -> Arc<dyn RegistrationClient> {
    registry::connect(url)
        .unwrap()
        .registration(registration)
        .unwrap()
}

/// The shortest lease that etcd grants.
fn short() -> Check {
    Check::ttl(Duration::from_secs(2))
}

async fn start(etcd: &Server<Etcd>, check: Check) -> Registrar {
    let client = client(&etcd.url(), registration(8975, check));
    let registrar = Registrar::start(client).unwrap();
    registered(&registrar).await;
    registrar
}

async fn registered(registrar: &Registrar) {
    let mut state = registrar.state();
    let registered = state.wait_for(RegistrationState::is_registered);
    within(Duration::from_secs(30), registered).await.unwrap();
}

async fn until_there(etcd: &Server<Etcd>) -> serde_json::Value {
    eventually("the entry", async || entry(etcd, KEY).await).await
}

async fn until_gone(etcd: &Server<Etcd>) {
    let gone = async || {
        let left = etcd.list(KEY).await.ok()?;
        left.is_empty().then_some(())
    };
    eventually("the end of the entry", gone).await;
}

#[tokio::test]
async fn go_kits_entry_is_the_address_under_a_lease() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let registrar = start(&etcd, Check::Default).await;
    // As Go kit's own registrar writes it.
    let entries = etcd.list("/services/").await.unwrap();
    assert_eq!(entries, [(KEY.to_owned(), "127.0.0.1:8975".to_owned())]);
    assert!(entry(&etcd, KEY).await.unwrap()["lease"].is_string());
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
    assert!(etcd.list("/services/").await.unwrap().is_empty());
}

#[tokio::test]
async fn the_grpc_layout_keeps_all_of_the_instance() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let url = format!("{}/naming?layout=grpc", etcd.url());
    let mut wanted = registration(8975, Check::Default);
    wanted.instance = wanted
        .instance
        .with_id("trim-1")
        .with_tags(["trim", "blue"])
        .with_meta([("version", "2"), ("zone", "a")])
        .with_weight(7)
        .with_zone("a")
        .with_datacenter("dc1");
    let instance = wanted.instance.clone();
    let registrar = Registrar::start(client(&url, wanted)).unwrap();
    let etcd_registry = registry::connect(&url).unwrap();
    let instancer = etcd_registry
        .instancer(&Query::new("trim_service"))
        .unwrap();
    let set = until(&mut instancer.watch(), |set| ids(set) == ["trim-1"]).await;
    let expected = instance.with_health(discovery::InstanceHealth::Passing);
    assert_eq!(*set.instances[0], expected);
    let entries = etcd.list("naming/trim_service/").await.unwrap();
    assert_eq!(entries[0].0, "naming/trim_service/127.0.0.1:8975");
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
    until(&mut instancer.watch(), |set| set.instances.is_empty()).await;
}

#[tokio::test]
async fn what_an_entry_or_a_check_cannot_hold_is_refused() {
    let mut tagged = registration(8975, Check::Default);
    tagged.instance = tagged.instance.with_tags(["blue"]);
    for (registration, named) in [
        (tagged, "layout=grpc"),
        (registration(8975, Check::grpc()), "ttl"),
        (registration(8975, Check::ttl(Duration::ZERO)), "TTL"),
    ] {
        let etcd = registry::connect("etcd://127.0.0.1:1").unwrap();
        let error = etcd.registration(registration).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, RegistryError::InvalidSetting { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_process_that_is_gone_leaves_with_its_lease() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let registrar = start(&etcd, short()).await;
    let dropped = Instant::now();
    // Dropping it ends the keep-alives and deregisters nothing, as a crash does.
    drop(registrar);
    until_gone(&etcd).await;
    assert!(dropped.elapsed() > Duration::from_secs(1));
}

#[tokio::test]
async fn a_lease_is_kept_alive_for_longer_than_its_time() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let registrar = start(&etcd, short()).await;
    let before = entry(&etcd, KEY).await.unwrap();
    // Condition: three times the lease's time has passed.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(entry(&etcd, KEY).await.unwrap(), before);
    assert!(registrar.state().borrow().is_registered());
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn an_entry_that_was_removed_or_overwritten_is_registered_again() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let registrar = start(&etcd, Check::Default).await;
    etcd.delete(KEY).await.unwrap();
    until_there(&etcd).await;
    registered(&registrar).await;
    etcd.put(KEY, "127.0.0.1:1").await.unwrap();
    let ours = async || {
        let (_, value) = etcd.list(KEY).await.ok()?.pop()?;
        (value == "127.0.0.1:8975").then_some(())
    };
    eventually("our own value", ours).await;
    registered(&registrar).await;
    // The test ends the lease. Its ID is the one in the entry.
    let lease = until_there(&etcd).await["lease"].clone();
    etcd_servers::revoke(&etcd, lease.as_str().unwrap()).await;
    let again = async || {
        let entry = entry(&etcd, KEY).await?;
        (entry["lease"] != lease).then_some(())
    };
    eventually("another lease", again).await;
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
    until_gone(&etcd).await;
}

#[tokio::test]
async fn a_server_that_kept_its_data_is_not_written_to_again() {
    let Some(mut etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let registrar = start(&etcd, Check::ttl(Duration::from_secs(60))).await;
    let before = entry(&etcd, KEY).await.unwrap();
    let mut state = registrar.state();
    etcd.kill().await.unwrap();
    let lost = state.wait_for(|state| !state.is_registered());
    within(Duration::from_secs(30), lost).await.unwrap();
    etcd.restart().await.unwrap();
    registered(&registrar).await;
    assert_eq!(until_there(&etcd).await, before);
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_lost_its_data_has_the_instance_again() {
    let Some(mut etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let registrar = start(&etcd, Check::Default).await;
    etcd.kill().await.unwrap();
    etcd.restart_wiped().await.unwrap();
    until_there(&etcd).await;
    registered(&registrar).await;
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
    until_gone(&etcd).await;
}

#[tokio::test]
async fn a_server_that_hangs_for_longer_than_the_lease_has_the_instance_again() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let registrar = start(&etcd, short()).await;
    let mut state = registrar.state();
    etcd.pause().unwrap();
    let lost = state.wait_for(|state| !state.is_registered());
    within(Duration::from_secs(30), lost).await.unwrap();
    etcd.resume().unwrap();
    registered(&registrar).await;
    until_there(&etcd).await;
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn an_unreachable_server_gets_the_instance_when_it_is_there() {
    let Some(mut etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    etcd.terminate().await.unwrap();
    let registrar = Registrar::start(client(&etcd.url(), registration(8975, short()))).unwrap();
    let mut state = registrar.state();
    let failed = state.wait_for(|state| matches!(state, RegistrationState::Registering(Some(_))));
    within(Duration::from_secs(30), failed).await.unwrap();
    etcd.restart().await.unwrap();
    registered(&registrar).await;
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn an_entry_without_a_check_stays_until_it_is_deregistered() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    let registrar = start(&etcd, Check::None).await;
    assert!(until_there(&etcd).await["lease"].is_null());
    etcd.delete(KEY).await.unwrap();
    until_there(&etcd).await;
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
    until_gone(&etcd).await;
    // Deregistering an unregistered instance succeeds, and another's entry is left alone.
    etcd.put(KEY, "127.0.0.1:1").await.unwrap();
    for check in [Check::None, Check::Default] {
        let client = client(&etcd.url(), registration(8975, check));
        client.deregister().await.unwrap();
    }
    assert_eq!(etcd.list(KEY).await.unwrap().len(), 1);
}
