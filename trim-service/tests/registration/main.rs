//! The trim service's binary with a real Consul: registration, deregistration, recovery.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod ending;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use proto::{TrimRequest, trim_client::TrimClient};
use serde_json::{Value, json};
use testkit::{Consul, Signal, TestCa, TrimService, eventually, trim_service};
use tokio::{task::JoinHandle, time::Instant};
use tonic::{Response, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{LIMIT, connect, trim};

/// Consul's shortest interval between two checks.
const QUICK_CHECK: [&str; 2] = ["--check-interval", "1s"];

/// Each registered instance and the worst status of its own checks.
async fn listed(consul: &Consul) -> anyhow::Result<Vec<(String, String)>> {
    let entries = consul.get("/v1/health/service/trim_service").await?;
    let entries = entries.as_array().cloned().unwrap_or_default();
    Ok(entries.iter().map(status).collect())
}

fn status(entry: &Value) -> (String, String) {
    let id = &entry["Service"]["ID"];
    let checks = entry["Checks"].as_array().into_iter().flatten();
    let own = checks.filter(|check| check["ServiceID"] == *id);
    let bad = own.filter_map(|check| check["Status"].as_str());
    let worst = bad.max_by_key(|status| {
        ["passing", "warning", "critical"]
            .iter()
            .position(|s| s == status)
    });
    let id = id.as_str().unwrap_or_default();
    (id.to_owned(), worst.unwrap_or("no check").to_owned())
}

/// Waits until Consul shows this instance alone, with this status. Returns the time it took.
async fn until(consul: &Consul, service: &TrimService, status: &str) -> Duration {
    let wanted = vec![(service.id.clone(), status.to_owned())];
    let look = async || match listed(consul).await {
        Ok(found) if found == wanted => Ok(()),
        other => Err(other),
    };
    eventually(&format!("{} {status}", service.id), LIMIT, look)
        .await
        .unwrap()
        .1
}

/// Starts a service with these flags, and waits until it is registered and passing.
async fn registered(consul: &Consul, flags: &[&str]) -> TrimService {
    let address = consul.address();
    let flags = [&["--consul", &address], &QUICK_CHECK[..], flags].concat();
    let service = trim_service(&flags).await.unwrap();
    until(consul, &service, "passing").await;
    service
}

#[tokio::test]
async fn consul_shows_what_the_flags_say() {
    let consul = Consul::start().await.unwrap();
    let address = consul.address();
    let common = [
        "--consul",
        &address,
        "--tag",
        "trim",
        "--tag",
        "blue,green",
        "--meta",
        "version=2",
        "--meta",
        "zone=a",
        "--weight",
        "7",
        "--check-interval",
        "3s",
        "--deregister-after",
        "90s",
    ];
    for (kind, expected) in [
        ("grpc", json!("grpc")),
        ("ttl", json!("ttl")),
        ("none", Value::Null),
    ] {
        let service = trim_service(&[&common[..], &["--check", kind]].concat())
            .await
            .unwrap();
        let (id, port) = (&service.id, service.grpc.port());
        assert_eq!(*id, format!("trim_service-127.0.0.1-{port}"));
        let path = format!("/v1/agent/service/{id}");
        let look = async || consul.get(&path).await;
        let (shown, _) = eventually("registered", LIMIT, look).await.unwrap();
        assert_eq!(shown["ID"], json!(id));
        assert_eq!(shown["Service"], "trim_service");
        assert_eq!(shown["Address"], "127.0.0.1");
        assert_eq!(shown["Port"], json!(port));
        assert_eq!(shown["Tags"], json!(["trim", "blue,green"]));
        assert_eq!(shown["Meta"], json!({"version": "2", "zone": "a"}));
        assert_eq!(shown["Weights"], json!({"Passing": 7, "Warning": 1}));
        let checks = consul.get("/v1/agent/checks").await.unwrap();
        let own = checks
            .as_object()
            .unwrap()
            .values()
            .find(|check| check["ServiceID"] == json!(id));
        assert_eq!(
            own.map_or(&Value::Null, |check| &check["Type"]),
            &expected,
            "--check {kind}"
        );
    }
}

#[tokio::test]
async fn the_environment_says_it_as_well_as_the_flags() {
    let consul = Consul::start().await.unwrap();
    let address = consul.address();
    let environment = [
        ("CONSUL_HTTP_ADDR", &*address),
        ("TRIM_PORT", "0"),
        ("TRIM_IP", "127.0.0.2"),
        ("TRIM_LISTEN", "127.0.0.1"),
        ("TRIM_NAME", "other"),
        ("TRIM_TAGS", "one,two"),
        ("TRIM_META", "a=1,b=2"),
        ("TRIM_CHECK", "none"),
    ];
    let binary = testkit::service_binary("trim-service").await.unwrap();
    let process = testkit::Process::spawn_with(&binary, [""; 0], environment).unwrap();
    let line = process.stdout_line("listening", LIMIT).await.unwrap();
    let look = async || match consul.get("/v1/health/service/other").await {
        Ok(entries) if !entries[0].is_null() => Ok(entries[0]["Service"].clone()),
        other => Err(other),
    };
    let (service, _) = eventually("registered", LIMIT, look).await.unwrap();
    assert!(
        line.contains(&format!("id=other-127.0.0.2-{}", service["Port"])),
        "{line}"
    );
    assert_eq!(service["Address"], "127.0.0.2");
    assert_eq!(service["Tags"], json!(["one", "two"]));
    assert_eq!(service["Meta"], json!({"a": "1", "b": "2"}));
}

#[tokio::test]
async fn an_instance_with_tls_passes_consuls_check_and_one_that_needs_certificates_sends_heartbeats()
 {
    let consul = Consul::start().await.unwrap();
    let address = consul.address();
    let ca = TestCa::new().unwrap();
    ca.issue("trim").unwrap();
    let (cert, key) = (ca.path("trim.pem"), ca.path("trim.key"));
    let clients = ca.path("ca.pem");
    let tls = ["--consul", &address, "--tls-cert", &cert, "--tls-key", &key];
    for (flags, kind) in [
        (vec![], "grpc"),
        (vec!["--check=grpc", "--check-interval=1s"], "grpc"),
        (vec!["--tls-client-ca", &clients], "ttl"),
    ] {
        let mut service = trim_service(&[&tls[..], &flags].concat()).await.unwrap();
        // Consul has called the health service: until then there is no output.
        let id = format!("service:{}", service.id);
        let look = async || {
            let checks = consul.get("/v1/agent/checks").await.unwrap();
            let check = checks[&id].clone();
            let passes = check["Status"] == "passing" && check["Type"] == kind;
            let has_run = kind == "ttl"
                || check["Output"]
                    .as_str()
                    .is_some_and(|o| o.contains("success"));
            if passes && has_run {
                Ok(())
            } else {
                Err(checks)
            }
        };
        eventually(kind, LIMIT, look).await.unwrap();
        service.process.signal(Signal::SIGTERM).unwrap();
        assert_eq!(service.process.exit(LIMIT).await.unwrap().code(), Some(0));
    }
}

#[tokio::test]
async fn it_serves_while_consul_is_away_and_registers_when_it_comes() {
    let mut consul = Consul::start().await.unwrap();
    consul.kill().await.unwrap();
    let service = trim_service(&["--consul", &consul.address()])
        .await
        .unwrap();
    let said = service
        .process
        .stderr_line("not registered", LIMIT)
        .await
        .unwrap();
    assert!(said.contains(&consul.address()), "{said}");
    assert_eq!(
        trim(connect(service.grpc).await, " a b ").await.unwrap(),
        "ab"
    );
    consul.restart().await.unwrap();
    let took = until(&consul, &service, "passing").await;
    assert!(
        took < Duration::from_secs(5),
        "registered {took:?} after Consul came"
    );
}

#[tokio::test]
async fn a_consul_that_restarts_empty_gets_it_back() {
    let mut consul = Consul::start().await.unwrap();
    let service = registered(&consul, &[]).await;
    for _ in 0..2 {
        consul.kill().await.unwrap();
        consul.restart().await.unwrap();
        let took = until(&consul, &service, "passing").await;
        assert!(
            took < Duration::from_secs(5),
            "registered {took:?} after Consul was back"
        );
    }
}

#[tokio::test]
async fn a_deregistration_by_another_client_is_mended() {
    let consul = Consul::start().await.unwrap();
    let service = registered(&consul, &[]).await;
    let path = format!("/v1/agent/service/deregister/{}", service.id);
    consul.put(&path, &Value::Null).await.unwrap();
    let took = until(&consul, &service, "passing").await;
    assert!(
        took < Duration::from_secs(5),
        "registered again after {took:?}"
    );
}

async fn stopped_and_continued(kind: &str) {
    let consul = Consul::start().await.unwrap();
    let service = registered(&consul, &["--check", kind]).await;
    service.process.signal(Signal::SIGSTOP).unwrap();
    until(&consul, &service, "critical").await;
    service.process.signal(Signal::SIGCONT).unwrap();
    until(&consul, &service, "passing").await;
}

#[tokio::test]
async fn a_grpc_check_that_went_critical_is_brought_back() {
    stopped_and_continued("grpc").await;
}

#[tokio::test]
async fn a_ttl_check_that_went_critical_is_brought_back() {
    stopped_and_continued("ttl").await;
}

#[tokio::test]
async fn the_service_to_check_is_a_flag_and_a_critical_check_is_logged() {
    let consul = Consul::start().await.unwrap();
    let named = registered(&consul, &["--check-service", "pb.Trim"]).await;
    let checks = consul.get("/v1/agent/checks").await.unwrap();
    assert_eq!(checks.as_object().unwrap().len(), 1, "{checks}");
    let id = format!("service:{}", named.id);
    let look = async || {
        let checks = consul.get("/v1/agent/checks").await.unwrap();
        let output = checks[&id]["Output"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        output.contains("/pb.Trim").then_some(()).ok_or(output)
    };
    eventually("the check has run", LIMIT, look).await.unwrap();
    until(&consul, &named, "passing").await;
    drop(named);

    // The health service does not know this service.
    let flags = ["--consul", &consul.address(), "--check-service", "pb.Add"];
    let unknown = trim_service(&[&flags[..], &QUICK_CHECK[..]].concat())
        .await
        .unwrap();
    let line = unknown
        .process
        .stderr_line("the health check is critical", LIMIT)
        .await
        .unwrap();
    assert!(line.contains("NotFound"), "{line}");
}
