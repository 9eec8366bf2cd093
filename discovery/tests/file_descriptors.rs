//! More healthy instances than the process has file descriptors for. The limit is lowered in a child
//! process, which is this test again.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{env, fs::File, path::Path, process::Command, sync::Arc, time::Duration};

use discovery::{Channel, ConnectivityState, EndpointStatus, Instance, registry::StaticRegistry};
use futures_util::stream::select_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proto::{TrimRequest, trim_client::TrimClient, trim_server::TrimServer};
use testkit::Trimmer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// The variable that names the file with the servers' ports, in the child process.
const PORTS: &str = "FILE_DESCRIPTORS_TEST_PORTS";
const INSTANCES: usize = 1_200;
const LIMIT: u64 = 1_024;
/// The part of the limit that is kept for other uses.
const KEPT: usize = 256;

#[tokio::test]
async fn with_1200_healthy_instances_and_1024_descriptors_every_call_succeeds() {
    if let Ok(ports) = env::var(PORTS) {
        return client(Path::new(&ports)).await;
    }
    // A listener and an accepted connection for each.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut listeners = Vec::new();
    for _ in 0..INSTANCES {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let ports: Vec<String> = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port().to_string())
        .collect();
    let incoming = select_all(listeners.into_iter().map(TcpListenerStream::new));
    tokio::spawn(
        Server::builder()
            .add_service(TrimServer::new(Trimmer))
            .serve_with_incoming(incoming),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ports");
    std::fs::write(&file, ports.join("\n")).unwrap();
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "--nocapture"]);
    child.arg("with_1200_healthy_instances_and_1024_descriptors_every_call_succeeds");
    child.env(PORTS, &file);
    let output = tokio::task::spawn_blocking(move || child.output()).await;
    let output = output.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{:?}", output.stderr);
    assert!(text.contains("1 passed"), "{text}");
}

/// The process whose limit is lower than the number of instances.
async fn client(ports: &Path) {
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, LIMIT).unwrap();
    let ports = std::fs::read_to_string(ports).unwrap();
    let instances: Vec<Instance> = ports
        .lines()
        .map(|port| Instance::new("127.0.0.1", port.parse().unwrap()).unwrap())
        .collect();
    assert_eq!(instances.len(), INSTANCES);
    let registry = StaticRegistry::new(instances.clone());
    let channel = Channel::from_registry(Arc::new(registry.clone()), "echo")
        .retry_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut client = TrimClient::new(channel.clone());
    let is_short = |endpoint: &EndpointStatus| {
        let error = endpoint.last_error.as_ref().map(ToString::to_string);
        let short = error.is_some_and(|error| error.contains("no file descriptor"));
        short && endpoint.connectivity == ConnectivityState::TransientFailure
    };
    // Calls all the while, from before the descriptors are used up.
    let begun = std::time::Instant::now();
    loop {
        call(&mut client).await;
        if channel.endpoints().iter().any(is_short) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120));
    }
    for _ in 0..2_000 {
        call(&mut client).await;
    }
    let ready = channel.status().ready;
    assert!(
        (600..=usize::try_from(LIMIT).unwrap() - KEPT).contains(&ready),
        "{ready}"
    );
    // Others have the descriptors that are kept.
    let files: Result<Vec<File>, _> = (0..KEPT - 64).map(|_| File::open("/dev/null")).collect();
    drop(files.unwrap());
    // None is taken for faulty, and each is connected when there are descriptors.
    let waiting: Vec<Instance> = channel
        .endpoints()
        .iter()
        .filter(|endpoint| endpoint.connectivity != ConnectivityState::Ready)
        .map(|endpoint| (*endpoint.instance).clone())
        .collect();
    let count = waiting.len();
    registry.set(waiting);
    support::eventually(|| channel.status().ready == count).await;
    call(&mut client).await;
}

async fn call(client: &mut TrimClient<Channel>) {
    let s = "a".to_owned();
    let answer = client.trim_space(TrimRequest { s }).await.unwrap();
    assert_eq!(answer.into_inner().s, "a");
}
