//! Balancing policies and filters with real servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that panics has failed"
)]

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use discovery::{
    Channel, ChannelBuilder, HashKey, Instance, ServedBy, balance::Policy, registry::StaticRegistry,
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::TrimServer;
use tokio::task::JoinSet;
use tonic::Request;

fn builder(registry: &StaticRegistry, policy: &str) -> ChannelBuilder {
    Channel::from_registry(Arc::new(registry.clone()), "trim_service")
        .balancer(policy.parse::<Policy>().unwrap())
        .retry_timeout(Duration::from_secs(5))
}

async fn ready(builder: ChannelBuilder, count: usize) -> Channel {
    let channel = builder.build().unwrap();
    all_ready(&channel, count).await;
    channel
}

async fn all_ready(channel: &Channel, count: usize) {
    support::eventually(|| channel.status().ready == count).await;
    // The last connection has notified the endpointer, which runs before this task continues.
    tokio::task::yield_now().await;
}

/// The ID of the instance that answered.
async fn call(channel: &Channel, key: Option<HashKey>) -> String {
    let mut request = Request::new(TrimRequest { s: " a b ".into() });
    if let Some(key) = key {
        request.extensions_mut().insert(key);
    }
    let response = TrimClient::new(channel.clone())
        .trim_space(request)
        .await
        .unwrap();
    assert_eq!(response.get_ref().s, "ab");
    let served = response.extensions().get::<ServedBy>();
    served
        .expect("the response names its instance")
        .0
        .id
        .clone()
}

async fn spread(channel: &Channel, calls: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(call(channel, None).await).or_default() += 1;
    }
    counts
}

/// Makes calls from concurrent callers. Each caller makes one call after the other.
async fn load(channel: &Channel, callers: usize, calls: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let channel = channel.clone();
        tasks.spawn(async move {
            for _ in 0..calls {
                call(&channel, None).await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

fn in_zone(server: &TrimServer, zone: &str) -> Instance {
    let mut instance = server.instance();
    instance.zone = Some(zone.to_owned());
    instance
}

/// The share of calls that a server with this latency receives, with two fast servers beside it.
async fn share_of_a_slow_server(policy: &str, latency: Duration) -> f64 {
    let servers = TrimServer::start_many(3).await;
    for server in &servers {
        // A fast server takes some time too, so that calls overlap.
        server.behave(|_| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Ok(())
        });
    }
    servers[0].behave(move |_| async move {
        tokio::time::sleep(latency).await;
        Ok(())
    });
    let channel = ready(builder(&support::fixed(&servers), policy), 3).await;
    load(&channel, 8, 50).await;
    let share = |part: usize| f64::from(u32::try_from(part).unwrap());
    share(servers[0].calls()) / share(servers.iter().map(TrimServer::calls).sum())
}

#[tokio::test]
async fn a_slow_server_receives_fewer_calls_under_policies_that_compare_loads() {
    let latency = Duration::from_millis(100);
    let share = share_of_a_slow_server("round-robin", latency).await;
    assert!((0.32..0.35).contains(&share), "round robin: {share}");
    for policy in ["least-request", "peak-ewma"] {
        let share = share_of_a_slow_server(policy, latency).await;
        assert!(share < 0.15, "{policy}: {share}");
    }
}

#[tokio::test]
async fn every_cycle_has_the_exact_weights() {
    let servers = TrimServer::start_many(3).await;
    let instances = servers.iter().zip([1, 2, 5]).map(|(server, weight)| {
        let mut instance = server.instance();
        instance.weight = weight;
        instance
    });
    let builder = builder(&StaticRegistry::new(instances), "weighted-round-robin");
    let channel = ready(builder, 3).await;
    for cycle in 1..=10 {
        load(&channel, 4, 2).await;
        let counts: Vec<_> = servers.iter().map(TrimServer::calls).collect();
        assert_eq!(counts, [cycle, 2 * cycle, 5 * cycle]);
    }
}

#[tokio::test]
async fn a_key_keeps_its_instance_until_the_instance_is_removed() {
    let mut servers = TrimServer::start_many(5).await;
    let registry = support::fixed(&servers);
    let channel = ready(builder(&registry, "consistent-hash"), 5).await;
    // A second client with its own channel.
    let other = ready(builder(&registry, "consistent-hash"), 5).await;
    let names: Vec<String> = (0..40).map(|user| format!("user-{user}")).collect();
    let key = |name: &str| Some(HashKey::of(name.as_bytes()));
    let mut owners = Vec::new();
    for name in &names {
        let owner = call(&channel, key(name)).await;
        assert_eq!(call(&channel, key(name)).await, owner);
        assert_eq!(call(&other, key(name)).await, owner);
        owners.push(owner);
    }
    let mut used = owners.clone();
    used.sort();
    used.dedup();
    assert_eq!(used.len(), 5, "40 keys go to {used:?}");

    let gone = servers.pop().unwrap();
    registry.set(servers.iter().map(TrimServer::instance));
    support::eventually(|| channel.status().instances == 4).await;
    for (name, before) in names.iter().zip(&owners) {
        let after = call(&channel, key(name)).await;
        assert_eq!(after == *before, *before != gone.instance().id, "{name}");
    }
    servers.push(gone);
    registry.set(servers.iter().map(TrimServer::instance));
    all_ready(&channel, 5).await;
    for (name, owner) in names.iter().zip(&owners) {
        assert_eq!(call(&channel, key(name)).await, *owner);
    }
}

#[tokio::test]
async fn calls_stay_in_the_zone_until_its_last_server_stops() {
    let mut servers = TrimServer::start_many(3).await;
    let places = ["here", "there", "there"];
    let instances = servers.iter().zip(places).map(|(s, z)| in_zone(s, z));
    let builder = builder(&StaticRegistry::new(instances), "round-robin").zone("here");
    let channel = ready(builder, 3).await;
    let near = servers[0].instance().id;
    // One of three servers is two thirds of a zone's fair share. With the overprovisioning factor of
    // 1.4, 14 of 15 calls stay.
    let calls = spread(&channel, 300).await;
    assert!((250..300).contains(&calls[&near]), "{calls:?}");

    servers[0].stop().await;
    let calls = spread(&channel, 100).await;
    assert_eq!(calls.get(&near), None, "{calls:?}");
    assert_eq!(calls.len(), 2, "{calls:?}");

    servers[0].restart().await;
    all_ready(&channel, 3).await;
    let calls = spread(&channel, 100).await;
    assert!(calls[&near] > 75, "{calls:?}");
}

#[tokio::test]
async fn a_zone_with_its_fair_share_keeps_every_call() {
    let servers = TrimServer::start_many(4).await;
    let places = ["here", "there", "here", "there"];
    let instances = servers.iter().zip(places).map(|(s, z)| in_zone(s, z));
    let builder = builder(&StaticRegistry::new(instances), "round-robin").zone("here");
    let channel = ready(builder, 4).await;
    spread(&channel, 100).await;
    let counts: Vec<_> = servers.iter().map(TrimServer::calls).collect();
    assert_eq!(counts, [50, 0, 50, 0]);
}

#[tokio::test]
async fn a_call_that_fails_in_the_zone_is_retried_elsewhere() {
    let servers = TrimServer::start_many(2).await;
    servers[0].behave(|_| async { Err(tonic::Status::unavailable("injected")) });
    let places = ["here", "there"];
    let instances = servers.iter().zip(places).map(|(s, z)| in_zone(s, z));
    let builder = builder(&StaticRegistry::new(instances), "round-robin").zone("here");
    let channel = ready(builder, 2).await;
    assert_eq!(call(&channel, None).await, servers[1].instance().id);
    assert_eq!((servers[0].calls(), servers[1].calls()), (1, 1));
}

#[tokio::test]
async fn a_subset_has_the_given_size_and_changes_by_at_most_one() {
    let mut servers = TrimServer::start_many(12).await;
    let registry = support::fixed(&servers);
    let client = |id: &str| builder(&registry, "round-robin").subset(4).subset_id(id);
    let connected = |servers: &[TrimServer]| -> Vec<Instance> {
        servers
            .iter()
            .filter(|server| server.connections() > 0)
            .map(TrimServer::instance)
            .collect()
    };
    let channel = ready(client("a"), 4).await;
    assert_eq!(channel.status().instances, 4);
    assert_eq!(spread(&channel, 40).await.len(), 4);
    let before = connected(&servers);
    assert_eq!(before.len(), 4);

    let again = ready(client("a"), 4).await;
    assert_eq!(
        connected(&servers),
        before,
        "clients with the same name have the same subset"
    );
    drop(again);

    let gone = servers
        .iter()
        .position(|server| server.instance() == before[0])
        .unwrap();
    let gone = servers.remove(gone);
    registry.set(servers.iter().map(TrimServer::instance));
    support::eventually(|| gone.connections() == 0 && channel.status().ready == 4).await;
    let after = connected(&servers);
    assert_eq!(after.len(), 4);
    assert_eq!(before.iter().filter(|i| after.contains(i)).count(), 3);

    let mut clients = Vec::new();
    for name in ["b", "c", "d", "e", "f", "g"] {
        clients.push(ready(client(name), 4).await);
    }
    let used = connected(&servers).len();
    assert!(
        used > 7,
        "seven subsets of four use {used} of eleven servers"
    );
}
