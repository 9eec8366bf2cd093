//! Health watching (gRFC A17) of the health service of grpc-go.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{collections::BTreeMap, env, path::Path, sync::Arc, time::Duration};

use discovery::{
    Channel, ChannelBuilder, Instance, ServedBy, WatchedHealth, registry::StaticRegistry,
};
use proto::{TrimRequest, trim_client::TrimClient};
use testkit::{Process, Signal, registries::skip};

/// A Go program starts in well under a second, on a quiet machine.
const LIMIT: Duration = Duration::from_secs(60);
const SERVICE: &str = "pb.Trim";

/// A server of grpc-go.
struct Server {
    process: Process,
    port: u16,
}

impl Server {
    /// Starts one with the health service for this name, or without. `None` without the Go program, which
    /// has been said.
    async fn start(health: Option<&str>) -> Option<Self> {
        let Some(binary) = env::var_os("HEALTH_PEER_BIN") else {
            let reason =
                "HEALTH_PEER_BIN is not set; set it to what scripts/get-go-peer.sh health prints";
            skip("grpc-go's health watching", reason).unwrap();
            return None;
        };
        let arguments = ["serve"].into_iter().chain(health);
        let process = Process::spawn(Path::new(&binary), arguments).unwrap();
        let address = process.stdout_line(":", LIMIT).await.unwrap();
        let port = Instance::parse(&address).unwrap().port;
        Some(Self { process, port })
    }
}

fn channel(servers: &[&Server], health: &str) -> Channel {
    let instances = servers
        .iter()
        .map(|server| Instance::new("127.0.0.1", server.port).unwrap());
    let registry = StaticRegistry::new(instances);
    let builder: ChannelBuilder = Channel::from_registry(Arc::new(registry), "trim_service");
    builder
        .health_service(health)
        // Retries would hide a call to an instance that is not serving.
        .retry_max(1)
        .retry_timeout(LIMIT)
        .build()
        .unwrap()
}

/// The number of calls that each server answers of so many, all of which succeed.
async fn counts(channel: &Channel, servers: &[&Server], calls: usize) -> Vec<usize> {
    let mut client = TrimClient::new(channel.clone());
    let mut answered = BTreeMap::<u16, usize>::new();
    for _ in 0..calls {
        let response = client.trim_space(TrimRequest::default()).await.unwrap();
        let port = response.extensions().get::<ServedBy>().unwrap().0.port;
        *answered.entry(port).or_default() += 1;
    }
    let count = |server: &&Server| answered.get(&server.port).copied().unwrap_or_default();
    servers.iter().map(count).collect()
}

fn health(channel: &Channel, server: &Server) -> WatchedHealth {
    let all = channel.endpoints();
    let one = all.iter().find(|one| one.instance.port == server.port);
    one.unwrap().health
}

#[tokio::test]
async fn a_server_of_grpc_go_receives_calls_only_while_it_reports_serving() {
    let Some(changing) = Server::start(Some(SERVICE)).await else {
        return;
    };
    let serving = Server::start(Some(SERVICE)).await.unwrap();
    let without = Server::start(None).await.unwrap();
    let servers = [&changing, &serving, &without];
    let channel = channel(&servers, SERVICE);
    let seen = || servers.map(|server| health(&channel, server));
    let all_receive_calls = async || {
        channel.wait_for(|status| status.ready == 3).await.unwrap();
        assert_eq!(counts(&channel, &servers, 9).await, [3, 3, 3]);
        let expected = [
            WatchedHealth::Serving,
            WatchedHealth::Serving,
            WatchedHealth::NoService,
        ];
        assert_eq!(seen(), expected);
    };
    all_receive_calls().await;
    changing.process.signal(Signal::SIGUSR1).unwrap();
    let out = channel.wait_for(|status| status.not_serving == 1);
    out.await.unwrap();
    assert_eq!(seen()[0], WatchedHealth::NotServing);
    assert_eq!(counts(&channel, &servers, 10).await, [0, 5, 5]);
    changing.process.signal(Signal::SIGUSR2).unwrap();
    all_receive_calls().await;
}

#[tokio::test]
async fn a_service_that_a_server_of_grpc_go_does_not_know_is_not_serving() {
    let Some(other) = Server::start(Some("pb.Other")).await else {
        return;
    };
    let serving = Server::start(Some(SERVICE)).await.unwrap();
    let servers = [&other, &serving];
    let channel = channel(&servers, SERVICE);
    let settled = channel.wait_for(|status| status.ready == 1 && status.not_serving == 1);
    settled.await.unwrap();
    assert_eq!(health(&channel, &other), WatchedHealth::NotServing);
    assert_eq!(counts(&channel, &servers, 10).await, [0, 10]);
}
