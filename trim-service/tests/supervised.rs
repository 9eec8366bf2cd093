//! The trim service under a service manager that speaks systemd's notification protocol.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use tempfile::TempDir;
use testkit::{Process, ServiceManager, Signal, service_binary};

use crate::support::{LIMIT, connect, trim};

/// Starts the service with these variables.
async fn start(registry: &str, variables: &[(&str, &str)], flags: &[&str]) -> Process {
    let binary = service_binary("trim-service").await.unwrap();
    let arguments = "--listen 127.0.0.1 --port 0 --drain 200ms --registry";
    let arguments = arguments.split(' ').chain([registry]);
    let arguments = arguments.chain(flags.iter().copied());
    Process::spawn_with(&binary, arguments, variables.iter().copied()).unwrap()
}

/// The value of a variable in a message.
fn value<'a>(message: &'a str, variable: &str) -> &'a str {
    let mut lines = message.lines().filter_map(|line| line.split_once('='));
    lines.find(|(name, _)| *name == variable).unwrap().1
}

#[tokio::test]
async fn it_is_ready_once_it_is_registered_feeds_the_watchdog_and_says_that_it_stops() {
    let manager = ServiceManager::start().unwrap();
    let folder = TempDir::new().unwrap();
    let registry = format!("embedded://{}", folder.path().display());
    let variables = [
        ("NOTIFY_SOCKET", manager.address()),
        ("WATCHDOG_USEC", "100000"),
    ];
    let mut process = start(&registry, &variables, &[]).await;
    let (ready, _) = manager.message("READY=1", LIMIT).await.unwrap();
    let line = process.stdout_line("listening", LIMIT).await.unwrap();
    let (address, id) = line
        .split_once("grpc=")
        .and_then(|(_, rest)| rest.split_once(" id="))
        .unwrap();
    assert_eq!(
        value(&ready, "STATUS"),
        format!("Serving; {id} is registered")
    );
    let listed = folder.path().join(format!("trim_service/{id}.json"));
    assert!(listed.exists(), "{}", listed.display());
    let channel = connect(address.parse().unwrap()).await;
    assert_eq!(trim(channel, "a b").await.unwrap(), "ab");

    for _ in 0..3 {
        manager.message("WATCHDOG=1", LIMIT).await.unwrap();
    }
    process.signal(Signal::SIGTERM).unwrap();
    let (stopping, _) = manager.message("STOPPING=1", LIMIT).await.unwrap();
    // 2 s to deregister, the drain, and a second to end.
    assert_eq!(value(&stopping, "EXTEND_TIMEOUT_USEC"), "3200000");
    assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(0));
    assert!(!listed.exists(), "{}", listed.display());
}

#[tokio::test]
async fn it_is_ready_without_its_registry_and_the_status_says_why_it_is_not_registered() {
    let manager = ServiceManager::start().unwrap();
    let variables = [("NOTIFY_SOCKET", manager.address())];
    // Nothing listens there.
    let _process = start("consul://127.0.0.1:1", &variables, &[]).await;
    let (ready, before) = manager.message("READY=1", LIMIT).await.unwrap();
    assert!(before.is_empty(), "{before:?}");
    let status = value(&ready, "STATUS");
    assert!(
        status.contains(" is not registered: ") && status.contains("consul://127.0.0.1:1"),
        "{status}"
    );
}

#[tokio::test]
async fn a_manager_that_cannot_be_notified_is_a_warning() {
    for (socket, reason) in [
        (
            "/no/such/socket",
            "cannot connect to NOTIFY_SOCKET /no/such/socket",
        ),
        ("vsock:2:1", "must be an absolute path"),
    ] {
        // It registers nowhere, so its registry is not even asked.
        let flags = ["--register", "false"];
        let variables = [("NOTIFY_SOCKET", socket)];
        let mut process = start("consul://127.0.0.1:1", &variables, &flags).await;
        process.stderr_line(reason, LIMIT).await.unwrap();
        let line = process.stdout_line("listening", LIMIT).await.unwrap();
        let address = line.split_once("grpc=").unwrap().1;
        let address = address.split(' ').next().unwrap();
        let channel = connect(address.parse().unwrap()).await;
        assert_eq!(trim(channel, "a b").await.unwrap(), "ab");
        process.signal(Signal::SIGTERM).unwrap();
        assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(0));
        let log = process.stderr();
        assert!(!log.contains("registered"), "{log}");
    }
}
