//! `doctor` on set-ups that are broken in one way each, with real servers: it names the cause and the
//! remedy, and its exit code tells if calls work.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod certificates;
mod instances;
mod registry;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/tls.rs"]
mod tls;

use std::{net::SocketAddr, sync::Arc};

use serde_json::json;
use support::{Run, listed_trim, run, run_with, shared_consul};
use tempfile::TempDir;
use testkit::{
    Consul, MASTER_TOKEN, TrimService,
    registries::{Etcd, Server},
};

const FINE: i32 = 0;
const WARNINGS: i32 = 1;
const BROKEN: i32 = 2;

/// The Consul of these tests, which denies what no token allows.
async fn consul() -> Arc<Consul> {
    shared_consul(Consul::options().acl()).await
}

/// Registers an address in Consul, with a check in this state.
async fn register(consul: &Consul, service: &str, address: SocketAddr, check: &str) {
    let body = json!({
        "ID": format!("{service}-{}", address.port()),
        "Name": service,
        "Address": address.ip().to_string(),
        "Port": address.port(),
        "Check": {"TTL": "1h", "Status": check},
    });
    consul
        .put("/v1/agent/service/register", &body)
        .await
        .unwrap();
}

/// Runs doctor with all permissions in Consul.
async fn doctor(consul: &Consul, service: &str, flags: &[&str]) -> Run {
    let url = consul.url();
    let line = [&["doctor", &url, service], flags].concat();
    run_with(&line, &[("CONSUL_HTTP_TOKEN", MASTER_TOKEN)]).await
}

/// A trim service, which registers in a folder of its own.
async fn trim() -> (TrimService, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded://{}", folder.path().display());
    (listed_trim(&["--registry", &url]).await, folder)
}

/// `static://` with this address.
fn list(address: impl std::fmt::Display) -> String {
    format!("static://{address}")
}

#[tokio::test]
async fn a_healthy_service_is_fine_in_every_registry() {
    let consul = consul().await;
    let folder = tempfile::tempdir().unwrap();
    let embedded = format!("embedded://{}", folder.path().display());
    let trim = listed_trim(&["--registry", &embedded, "--ip", "127.0.0.1"]).await;
    register(&consul, "good_service", trim.grpc, "passing").await;
    let found = doctor(&consul, "good_service", &["--json"]).await;
    let report = found.json();
    assert_eq!(report["outcome"], "fine", "{report:#}");
    assert_eq!(report["usable"], 1);
    let findings = report["findings"].as_array().unwrap();
    assert!(
        findings.iter().all(|finding| finding["result"] == "ok"),
        "{report:#}"
    );
    let steps: Vec<_> = findings
        .iter()
        .map(|finding| finding["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "registry",
            "service",
            "health",
            "connection",
            "grpc",
            "reflection",
            "latency",
            "channel"
        ]
    );
    assert_eq!(found.code, FINE);

    let id = trim.id.clone();
    for url in [embedded, list(trim.grpc)] {
        let found = run(&["doctor", &url, "trim_service", "--grpc-service", "pb.Trim"]).await;
        found.says(FINE, &["fine: calls can use 1 instance", "a call takes "]);
        assert!(
            url.starts_with("static") || found.stdout.contains(&id),
            "{found:#?}"
        );
    }
    if let Some(etcd) = Server::start(Etcd).await.unwrap() {
        let key = format!("/services/trim_service/{}", trim.grpc);
        etcd.put(&key, trim.grpc.to_string()).await.unwrap();
        run(&["doctor", &etcd.url(), "trim_service"])
            .await
            .says(FINE, &["fine: "]);
        let found = run(&["doctor", &etcd.url(), "trim_servise"]).await;
        found.says(
            BROKEN,
            &["knows no service", "did you mean \"trim_service\"?"],
        );
    }
}
