//! The signals of a terminal that closes and of a supervisor end the trim service in order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;

use serde_json::json;
use testkit::{Consul, Process, Signal, eventually, service_binary};

use crate::support::{LIMIT, connect, trim};

/// Starts the service in a shell, after these commands, and waits until it is registered.
async fn start_after(commands: &str, consul: &Consul) -> (Process, String) {
    let binary = service_binary("trim-service").await.unwrap();
    let command = format!(
        "{commands} {} --listen 127.0.0.1 --port 0 --check none --drain 400ms --consul {}",
        binary.display(),
        consul.address()
    );
    let process = Process::spawn(Path::new("/bin/sh"), ["-c", &command]).unwrap();
    let line = process.stdout_line("listening", LIMIT).await.unwrap();
    let address = line.split_once("grpc=").unwrap().1;
    let address = address.split(' ').next().unwrap().to_owned();
    let registered = async || services(consul).await != json!({});
    eventually("registered", LIMIT, registered).await.unwrap();
    (process, address)
}

async fn services(consul: &Consul) -> serde_json::Value {
    consul.get("/v1/agent/services").await.unwrap()
}

#[tokio::test]
async fn sighup_and_sigquit_deregister_and_exit_with_0() {
    let consul = Consul::start().await.unwrap();
    for signal in [Signal::SIGHUP, Signal::SIGQUIT] {
        // The tests themselves may run under nohup.
        let commands = "exec env --default-signal=HUP,QUIT";
        let (mut process, _) = start_after(commands, &consul).await;
        process.signal(signal).unwrap();
        let status = process.exit(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert_eq!(services(&consul).await, json!({}), "after {signal}");
    }
}

#[tokio::test]
async fn under_nohup_it_goes_on_after_sighup() {
    let consul = Consul::start().await.unwrap();
    let (mut process, address) = start_after("trap '' HUP; exec", &consul).await;
    process.signal(Signal::SIGHUP).unwrap();
    let channel = connect(address.parse().unwrap()).await;
    assert_eq!(trim(channel, "a b").await.unwrap(), "ab");
    assert_ne!(services(&consul).await, json!({}));
    process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(0));
}
