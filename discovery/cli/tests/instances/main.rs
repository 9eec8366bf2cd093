//! `watch`, `resolve` and `register` with real registries and processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod register;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{LIMIT, binary, ended, run, shared_consul};
use tempfile::TempDir;
use testkit::{
    Consul, Process, Signal, eventually,
    fake::{FakeServer, Reply},
    free_ports,
    registries::{Etcd, Server},
    service_binary, trim_service,
};

/// A registry in a folder.
fn folder() -> (String, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (format!("embedded://{}", folder.path().display()), folder)
}

/// Waits until the registry lists so many instances that pass.
async fn until_listed(url: &str, service: &str, count: usize) -> Value {
    let look = async || {
        let found = run(&["resolve", url, service, "--passing", "--json"]).await;
        let list = found.json();
        let (length, code) = (list.as_array().unwrap().len(), i32::from(count == 0));
        if length == count && found.code == code {
            Ok(list)
        } else {
            Err(found)
        }
    };
    eventually("the number of instances", LIMIT, look)
        .await
        .unwrap()
        .0
}

#[tokio::test]
async fn a_service_is_resolved_as_a_table_and_as_json() {
    let (url, _folder) = folder();
    let none = run(&["resolve", &url, "trim_service"]).await;
    none.says(
        1,
        &[
            "no instance of \"trim_service\" in embedded://",
            "`discovery doctor` says why",
        ],
    );
    let flags = [
        "--registry",
        &url,
        "--ip",
        "127.0.0.1",
        "--tag",
        "blue",
        "--weight",
        "7",
    ];
    let trim = trim_service(&flags).await.unwrap();
    let list = until_listed(&url, "trim_service", 1).await;
    assert_eq!(list[0]["id"], trim.id);
    assert_eq!(list[0]["port"], trim.grpc.port());
    let table = run(&["resolve", &url, "trim_service", "--tag", "blue"]).await;
    table.says(
        0,
        &["ID  ", "WEIGHT", &trim.grpc.to_string(), "  7  ", "blue"],
    );
    run(&["resolve", &url, "trim_service", "--tag", "green"])
        .await
        .says(1, &[]);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_an_error_of_resolve() {
    let [port] = free_ports().unwrap();
    let url = format!("consul://127.0.0.1:{port}");
    let found = run(&["resolve", &url, "trim_service"]).await;
    found.says(
        2,
        &[
            "error: ",
            &url,
            "did not answer while trying to watch trim_service",
        ],
    );
    let silent = FakeServer::start(|_| Reply::hang()).await.unwrap();
    let url = format!("consul://{}", silent.address());
    let found = run(&["resolve", &url, "trim_service", "--timeout", "300ms"]).await;
    found.says(2, &["has not answered within 300ms"]);
}

#[tokio::test]
async fn a_watch_reports_each_change_as_a_line() {
    let (url, _folder) = folder();
    let json = Process::spawn(binary(), ["watch", &url, "trim_service", "--json"]).unwrap();
    let human = Process::spawn(binary(), ["watch", &url, "trim_service", "--passing"]).unwrap();
    json.stdout_line("\"registry_answered\"", LIMIT)
        .await
        .unwrap();
    human
        .stdout_line("answers: 0 instances", LIMIT)
        .await
        .unwrap();
    let mut trim = trim_service(&["--registry", &url, "--ip", "127.0.0.1"])
        .await
        .unwrap();
    let line = json.stdout_line("\"added\"", LIMIT).await.unwrap();
    let added: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(added["instance"]["id"], trim.id);
    assert!(added["time"].as_str().unwrap().ends_with('Z'), "{added}");
    human
        .stdout_line(&format!(" + {}  {}", trim.id, trim.grpc), LIMIT)
        .await
        .unwrap();
    trim.process.signal(Signal::SIGKILL).unwrap();
    trim.process.exit(LIMIT).await.unwrap();
    json.stdout_line("\"removed\"", LIMIT).await.unwrap();
    human
        .stdout_line(&format!(" - {}", trim.id), LIMIT)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_consul_watch_shows_health_and_filters_by_it() {
    let consul = shared_consul(Consul::options()).await;
    let body = json!({
        "ID": "w-1", "Name": "watched", "Address": "127.0.0.1", "Port": 1, "Tags": ["blue"],
        "Check": {"TTL": "1h", "Status": "passing"},
    });
    consul
        .put("/v1/agent/service/register", &body)
        .await
        .unwrap();
    let line = ["watch", &consul.url(), "watched", "--tag", "blue"];
    let all = Process::spawn(binary(), line).unwrap();
    let passing = Process::spawn(binary(), [&line[..], &["--passing"]].concat()).unwrap();
    all.stdout_line("health=passing  tags=blue", LIMIT)
        .await
        .unwrap();
    passing.stdout_line(" + w-1", LIMIT).await.unwrap();
    consul
        .put("/v1/agent/check/fail/service:w-1", &json!({}))
        .await
        .unwrap();
    all.stdout_line("~ w-1  health: passing -> critical", LIMIT)
        .await
        .unwrap();
    passing.stdout_line(" - w-1", LIMIT).await.unwrap();
    let table = run(&["resolve", &consul.url(), "watched"]).await;
    table.says(0, &["critical"]);
    run(&["resolve", &consul.url(), "watched", "--passing"])
        .await
        .says(1, &[]);
}
