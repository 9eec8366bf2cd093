//! Registrations with a real Consul, and their recovery.

#![cfg(feature = "consul")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod sets;

use std::{sync::Arc, time::Duration};

use discovery::{
    Registrar, RegistrationState,
    registry::{self, Check, Registration, RegistrationClient, Registry, RegistryError},
};
use serde_json::{Value, json};
use testkit::Consul;
use tokio::time::Instant;

use crate::sets::{eventually, registration, within};

const ID: &str = "trim_service-127.0.0.1-8975";

/// The time limit for a registration after Consul is back.
const BACK_WITHIN: Duration = Duration::from_secs(2);

fn client(url: &str, registration: Registration) -> Arc<dyn RegistrationClient> {
    registry::connect(url)
        .unwrap()
        .registration(registration)
        .unwrap()
}

fn ttl(ttl: Duration) -> Check {
    Check::ttl(ttl)
}

async fn start(consul: &Consul, check: Check) -> Registrar {
    let client = client(&consul.url(), registration(8975, check));
    let registrar = Registrar::start(client).unwrap();
    registered(&registrar).await;
    registrar
}

async fn registered(registrar: &Registrar) {
    let mut state = registrar.state();
    let registered = state.wait_for(RegistrationState::is_registered);
    within(Duration::from_secs(15), registered).await.unwrap();
}

/// The ports of the passing instances, as another client of Consul sees them.
async fn passing(consul: &Consul) -> Vec<u64> {
    let answer = consul
        .get("/v1/health/service/trim_service?passing=1")
        .await;
    let entries = answer.unwrap_or_default();
    let entries = entries.as_array().into_iter().flatten();
    entries
        .filter_map(|e| e["Service"]["Port"].as_u64())
        .collect()
}

async fn until_passing(consul: &Consul, ports: &[u64]) {
    let found = async || (passing(consul).await == ports).then_some(());
    eventually("passing in Consul", found).await;
}

#[tokio::test]
async fn consul_shows_what_was_registered() {
    let consul = Consul::start().await.unwrap();
    let mut wanted =
        registration(8975, Check::grpc()).with_deregister_critical_after(Duration::from_secs(90));
    wanted.instance = wanted
        .instance
        .with_tags(["trim", "blue"])
        .with_meta([("version", "2")])
        .with_weight(7)
        .with_zone("a");
    client(&consul.url(), wanted).register().await.unwrap();
    let service = consul
        .get(&format!("/v1/agent/service/{ID}"))
        .await
        .unwrap();
    assert_eq!(service["ID"], ID);
    assert_eq!(service["Service"], "trim_service");
    assert_eq!(
        (&service["Address"], &service["Port"]),
        (&json!("127.0.0.1"), &json!(8975))
    );
    assert_eq!(service["Tags"], json!(["trim", "blue"]));
    assert_eq!(service["Meta"], json!({"version": "2", "zone": "a"}));
    assert_eq!(service["Weights"], json!({"Passing": 7, "Warning": 1}));
    let checks = consul.get("/v1/agent/checks").await.unwrap();
    let check = &checks[format!("service:{ID}")];
    assert_eq!(
        (&check["Type"], &check["ServiceID"]),
        (&json!("grpc"), &json!(ID))
    );
}

#[tokio::test]
async fn a_grpc_check_finds_a_dead_instance() {
    let consul = Consul::start().await.unwrap();
    let check = Check::grpc().with_interval(Duration::from_secs(1));
    // Nothing listens on port 1.
    let client = client(&consul.url(), registration(1, check));
    client.register().await.unwrap();
    let output = eventually("critical", async || {
        let checks = consul.get("/v1/agent/checks").await.unwrap();
        let check = &checks["service:trim_service-127.0.0.1-1"];
        (check["Status"] == "critical").then(|| check["Output"].to_string())
    });
    let output = output.await;
    assert!(output.contains("connection refused"), "{output}");
}

#[tokio::test]
async fn is_passing_at_once_and_gone_after_deregistering() {
    let consul = Consul::start().await.unwrap();
    for check in [Check::None, ttl(Duration::from_secs(30))] {
        let registrar = start(&consul, check).await;
        until_passing(&consul, &[8975]).await;
        registrar.deregister(Duration::from_secs(5)).await.unwrap();
        let services = consul.get("/v1/agent/services").await.unwrap();
        assert_eq!(services, json!({}));
    }
}

#[tokio::test]
async fn what_is_not_there_may_be_deregistered() {
    for options in [Consul::options(), Consul::options().acl()] {
        let consul = options.start().await.unwrap();
        let config =
            registry::consul::Config::new(consul.address()).with_token(testkit::MASTER_TOKEN);
        let registry = registry::consul::Consul::new(&config).unwrap();
        let client = registry
            .registration(registration(8975, Check::None))
            .unwrap();
        client.deregister().await.unwrap();
    }
}

#[tokio::test]
async fn heartbeats_keep_it_passing() {
    let consul = Consul::start().await.unwrap();
    let ttl_check = ttl(Duration::from_secs(1));
    let registrar = start(&consul, ttl_check).await;
    until_passing(&consul, &[8975]).await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(passing(&consul).await, [8975]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Without heartbeats it does not stay passing.
    drop(registrar);
    until_passing(&consul, &[]).await;
}

#[tokio::test]
async fn is_back_when_consul_forgot_it() {
    let consul = Consul::start().await.unwrap();
    let registrar = start(&consul, Check::None).await;
    let path = format!("/v1/agent/service/deregister/{ID}");
    consul.put(&path, &Value::Null).await.unwrap();
    until_passing(&consul, &[8975]).await;
    drop(registrar);
}

#[tokio::test]
async fn is_back_when_another_took_its_id() {
    let consul = Consul::start().await.unwrap();
    let registrar = start(&consul, Check::None).await;
    let other = json!({"ID": ID, "Name": "trim_service", "Address": "127.0.0.1", "Port": 1,
                       "Check": {"CheckID": "other", "TTL": "60s"}});
    consul
        .put("/v1/agent/service/register", &other)
        .await
        .unwrap();
    until_passing(&consul, &[8975]).await;
    let checks = consul.get("/v1/agent/checks").await.unwrap();
    assert_eq!(checks, json!({}), "the other registration's check is gone");
    drop(registrar);
}

#[tokio::test]
async fn is_back_two_seconds_after_a_consul_that_lost_all() {
    let mut consul = Consul::start().await.unwrap();
    let checks = [(8975, Check::None), (8976, ttl(Duration::from_secs(30)))];
    let registrars = checks
        .map(|(port, check)| client(&consul.url(), registration(port, check)))
        .map(|client| Registrar::start(client).unwrap());
    until_passing(&consul, &[8975, 8976]).await;
    consul.kill().await.unwrap();
    // Long enough for the waits between attempts to grow.
    tokio::time::sleep(Duration::from_secs(4)).await;
    consul.restart().await.unwrap();
    let back = Instant::now();
    until_passing(&consul, &[8975, 8976]).await;
    assert!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    drop(registrars);
}

#[tokio::test]
async fn a_check_that_a_restart_made_critical_is_lifted() {
    let mut consul = Consul::options().data_dir().start().await.unwrap();
    let registrar = start(&consul, ttl(Duration::from_secs(30))).await;
    until_passing(&consul, &[8975]).await;
    consul.kill().await.unwrap();
    consul.restart().await.unwrap();
    let back = Instant::now();
    until_passing(&consul, &[8975]).await;
    assert!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    // A heartbeat also lifts a check that another client failed.
    drop(registrar);
    let path = format!("/v1/agent/check/fail/service:{ID}");
    consul.put(&path, &Value::Null).await.unwrap();
    until_passing(&consul, &[]).await;
    let registrar = start(&consul, ttl(Duration::from_secs(30))).await;
    until_passing(&consul, &[8975]).await;
    drop(registrar);
}

#[tokio::test]
async fn maintenance_outlives_a_restarted_consul() {
    let mut consul = Consul::options().data_dir().start().await.unwrap();
    let registrar = start(&consul, Check::None).await;
    until_passing(&consul, &[8975]).await;
    let path = format!("/v1/agent/service/maintenance/{ID}?enable=true&reason=upgrade");
    consul.put(&path, &Value::Null).await.unwrap();
    until_passing(&consul, &[]).await;
    consul.kill().await.unwrap();
    let mut state = registrar.state();
    let is_lost = |s: &RegistrationState| matches!(s, RegistrationState::Registering(_));
    within(Duration::from_secs(5), state.wait_for(is_lost))
        .await
        .unwrap();
    consul.restart().await.unwrap();
    registered(&registrar).await;
    assert_eq!(passing(&consul).await, [0; 0]);
    let checks = consul.get("/v1/agent/checks").await.unwrap();
    assert_eq!(
        checks[format!("_service_maintenance:{ID}")]["Notes"],
        "upgrade"
    );
}

#[tokio::test]
async fn a_stopped_consul_does_not_lose_it() {
    let consul = Consul::start().await.unwrap();
    let registrar = start(&consul, ttl(Duration::from_secs(2))).await;
    until_passing(&consul, &[8975]).await;
    consul.pause().unwrap();
    // Longer than the TTL.
    tokio::time::sleep(Duration::from_secs(3)).await;
    consul.resume().unwrap();
    until_passing(&consul, &[8975]).await;
    drop(registrar);
}

#[tokio::test]
async fn registers_with_a_consul_that_comes_later() {
    let mut consul = Consul::start().await.unwrap();
    consul.kill().await.unwrap();
    let client = client(&consul.url(), registration(8975, Check::None));
    let registrar = Registrar::start(client).unwrap();
    let mut state = registrar.state();
    let failed = |s: &RegistrationState| matches!(s, RegistrationState::Registering(Some(_)));
    let why = within(Duration::from_secs(5), state.wait_for(failed))
        .await
        .unwrap()
        .clone();
    let RegistrationState::Registering(Some(error)) = why else {
        panic!("{why:?}");
    };
    assert!(
        matches!(*error, RegistryError::Unreachable { .. }),
        "{error}"
    );
    consul.restart().await.unwrap();
    let back = Instant::now();
    until_passing(&consul, &[8975]).await;
    assert!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    drop(registrar);
}

#[tokio::test]
async fn an_id_may_hold_anything_that_a_path_can() {
    let consul = Consul::start().await.unwrap();
    for id in ["a/b", "a b", "a?b#c", "50%", "ü", "a+b", "a%2fb", "\"a\""] {
        let mut odd = registration(8975, ttl(Duration::from_secs(30)));
        odd.instance.id = id.to_owned();
        let client = client(&consul.url(), odd);
        client
            .register()
            .await
            .unwrap_or_else(|e| panic!("{id:?}: {e}"));
        let services = consul.get("/v1/agent/services").await.unwrap();
        assert_eq!(services[id]["ID"], id);
        // The agent shows it under its ID, so the maintenance does not end.
        let ended = tokio::time::timeout(Duration::from_millis(100), client.maintain()).await;
        assert!(ended.is_err(), "{id:?}: {ended:?}");
        client
            .deregister()
            .await
            .unwrap_or_else(|e| panic!("{id:?}: {e}"));
        let services = consul.get("/v1/agent/services").await.unwrap();
        assert_eq!(services, json!({}), "{id:?}");
    }
}
