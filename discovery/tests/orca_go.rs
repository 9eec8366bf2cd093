//! Load reports between this crate and grpc-go, both ways: per call and out of band.

#![cfg(feature = "orca")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test that panics has failed; numbers of calls are small"
)]

mod support;

use std::{collections::BTreeMap, env, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use discovery::{
    Channel, Instance, ServedBy,
    balance::Policy,
    orca::{LoadReport, LoadReports, ServerLoad},
    registry::StaticRegistry,
};
use proto::{
    TrimRequest, TrimResponse,
    trim_client::TrimClient,
    trim_server::{Trim, TrimServer},
};
use testkit::{Process, registries::skip};
use tokio::{net::TcpListener, task::AbortHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, service::Routes, transport::Server};

/// A Go program starts in well under a second, on a quiet machine.
const LIMIT: Duration = Duration::from_secs(60);
/// What three servers report: with equal rates, their weights are as 4 to 2 to 1.
const UTILIZATIONS: [f64; 3] = [0.1, 0.2, 0.4];

/// Starts the Go program. `None` without it, which has been said.
fn peer(arguments: &[&str]) -> Option<Process> {
    let Some(binary) = env::var_os("ORCA_PEER_BIN") else {
        let reason = "ORCA_PEER_BIN is not set; set it to what scripts/get-go-peer.sh orca prints";
        skip("grpc-go's load reports", reason).unwrap();
        return None;
    };
    Some(Process::spawn(Path::new(&binary), arguments).unwrap())
}

/// A tonic server, which ends with the test.
struct Ours {
    address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Spaces;

#[tonic::async_trait]
impl Trim for Spaces {
    async fn trim_space(&self, _: Request<TrimRequest>) -> Result<Response<TrimResponse>, Status> {
        Ok(Response::new(TrimResponse::default()))
    }
}

impl Ours {
    /// A server that reports 100 calls a second at this utilization.
    async fn start(utilization: f64, out_of_band: bool) -> Self {
        let load = ServerLoad::new();
        load.update(|report| {
            report.rps = 100.0;
            report.application_utilization = utilization;
            report.eps = 3.0;
        });
        let trim = TrimServer::new(Spaces);
        let routes = if out_of_band {
            let reports = load.service().with_min_interval(Duration::from_millis(100));
            Routes::new(trim).add_service(reports)
        } else {
            Routes::new(load.around(trim))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_routes(routes);
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        Self {
            address,
            task: tokio::spawn(serving).abort_handle(),
        }
    }
}

#[tokio::test]
async fn the_weights_of_grpc_gos_servers_follow_their_reports() {
    let mut servers = Vec::new();
    for utilization in UTILIZATIONS {
        let Some(server) = peer(&["serve", "100", &utilization.to_string(), "0"]) else {
            return;
        };
        let address = async || server.stdout().lines().next().map(str::to_owned).ok_or("");
        let address = testkit::eventually("the address of orca-peer", LIMIT, address).await;
        let (address, _) = address.unwrap();
        servers.push((address, server));
    }
    let instances = servers
        .iter()
        .map(|(address, _)| Instance::parse(address).unwrap());
    let instances: Vec<_> = instances.collect();
    let policy = LoadReports::default()
        .with_blackout(Duration::ZERO)
        .with_update_period(LoadReports::MIN_UPDATE_PERIOD);
    // The reports of calls say twice the utilization of those out of band.
    for (policy, factor) in [
        (policy, 2.0),
        (policy.with_out_of_band(Duration::from_secs(1)), 1.0),
    ] {
        let registry = StaticRegistry::new(instances.clone());
        let channel = Channel::from_registry(Arc::new(registry), "trim_service")
            .balancer(Policy::WeightedRoundRobin)
            .load_reports(policy)
            .retry_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        channel.wait_for(|status| status.ready == 3).await.unwrap();
        let mut client = TrimClient::new(channel.clone());
        for _ in 0..9 {
            let response = client.trim_space(TrimRequest::default()).await.unwrap();
            let metadata = response.metadata().clone().into_headers();
            let report = LoadReport::from_trailers(&metadata).unwrap().unwrap();
            assert_eq!(report.request_cost.keys().collect::<Vec<_>>(), ["bytes"]);
        }
        let weight = |address: &str| {
            let endpoints = channel.endpoints();
            let endpoint = endpoints
                .iter()
                .find(|e| Instance::parse(address).unwrap().port == e.instance.port);
            endpoint.unwrap().reported_weight
        };
        for ((address, _), utilization) in servers.iter().zip(UTILIZATIONS) {
            let expected = 100.0 / utilization / factor;
            support::eventually(|| {
                weight(address).is_some_and(|weight| (weight - expected).abs() < 1.0)
            })
            .await;
        }
        let mut calls = BTreeMap::<u16, u32>::new();
        for _ in 0..700 {
            let response = client.trim_space(TrimRequest::default()).await.unwrap();
            let port = response.extensions().get::<ServedBy>().unwrap().0.port;
            *calls.entry(port).or_default() += 1;
        }
        for (instance, expected) in instances.iter().zip([400, 200, 100]) {
            let seen = calls[&instance.port];
            assert!(seen.abs_diff(expected) <= 15, "{factor}: {calls:?}");
        }
    }
}

#[tokio::test]
async fn grpc_gos_weighted_round_robin_follows_our_reports() {
    for (reports, out_of_band) in [("per-call", false), ("oob", true)] {
        let mut servers = Vec::new();
        for utilization in UTILIZATIONS {
            servers.push(Ours::start(utilization, out_of_band).await);
        }
        let addresses = servers.iter().map(|server| server.address.to_string());
        let addresses: Vec<_> = addresses.collect();
        let mut arguments = vec!["call", reports, "3"];
        arguments.extend(addresses.iter().map(String::as_str));
        let Some(mut client) = peer(&arguments) else {
            return;
        };
        let status = client.exit(LIMIT).await.unwrap();
        assert!(status.success());
        let output = client.stdout();
        let counts: Vec<f64> = output
            .lines()
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        let sum: f64 = counts.iter().sum();
        // Of 100 calls a second, three fail, which count as 0.03 of utilization.
        let weights = UTILIZATIONS.map(|utilization| 1.0 / (utilization + 0.03));
        for (count, weight) in counts.iter().zip(weights) {
            let expected = weight / weights.iter().sum::<f64>();
            assert!(
                (count / sum - expected).abs() < 0.04,
                "{reports}: {counts:?}"
            );
        }
    }
}

#[tokio::test]
async fn grpc_gos_types_read_our_reports_out_of_band_at_the_interval_they_ask_for() {
    let server = Ours::start(0.25, true).await;
    let Some(watch) = peer(&["watch", &server.address.to_string()]) else {
        return;
    };
    let expected = "cpu 0 application 0.25 rps 100 eps 3";
    support::eventually(|| watch.stdout().lines().count() >= 3).await;
    assert!(
        watch.stdout().lines().all(|line| line == expected),
        "{}",
        watch.stdout()
    );
}
