//! The add service under a service manager that speaks systemd's notification protocol.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{fs, time::Duration};

use tempfile::TempDir;
use testkit::{Process, ServiceManager, Signal, http_client, service_binary};

use crate::support::LIMIT;

/// The balancer that the state of the channel names.
async fn balancer(page: &str) -> String {
    let url = format!("{page}debug/channel");
    let state = http_client().unwrap().get(url).send().await.unwrap();
    let state: serde_json::Value = state.json().await.unwrap();
    state["policy"]["balancer"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_reload_begins_and_ends_with_a_message_and_the_settings_are_then_in_use() {
    let manager = ServiceManager::start().unwrap();
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("trim.json");
    fs::write(&config, "{}").unwrap();
    let binary = service_binary("add-service").await.unwrap();
    let flags = "--listen 127.0.0.1 --http-port 0 --grpc-port 0 --drain 100ms --static 127.0.0.1:1 \
                 --trim-config";
    let flags = flags.split(' ').chain([config.to_str().unwrap()]);
    let variables = [("NOTIFY_SOCKET", manager.address())];
    let mut process = Process::spawn_with(&binary, flags, variables).unwrap();
    let (ready, _) = manager.message("READY=1", LIMIT).await.unwrap();
    assert_eq!(ready, "READY=1\nSTATUS=Serving");
    let line = process.stdout_line("listening", LIMIT).await.unwrap();
    let page = line.split_once("page=").unwrap().1;
    assert_eq!(balancer(page).await, "round-robin");

    // A file that cannot be used ends the reload too.
    for (json, expected) in [
        (
            r#"{"loadBalancingConfig": [{"least_request_experimental": {}}]}"#,
            "least-request",
        ),
        ("{", "least-request"),
    ] {
        fs::write(&config, json).unwrap();
        process.signal(Signal::SIGHUP).unwrap();
        let (reloading, before) = manager.message("RELOADING=1", LIMIT).await.unwrap();
        assert!(before.is_empty(), "{before:?}");
        let micros = reloading.lines().find_map(|line| {
            let micros = line.strip_prefix("MONOTONIC_USEC=")?;
            micros.parse().ok().map(Duration::from_micros)
        });
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let age = uptime - micros.unwrap().as_secs_f64();
        assert!((-1.0..20.0).contains(&age), "{age} s ago");
        let (_, before) = manager.message("READY=1", LIMIT).await.unwrap();
        assert!(before.is_empty(), "{before:?}");
        assert_eq!(balancer(page).await, expected);
    }
    process.signal(Signal::SIGTERM).unwrap();
    manager.message("STOPPING=1", LIMIT).await.unwrap();
    assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(0));
}
