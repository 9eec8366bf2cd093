//! Calls through a channel to real servers: their distribution, and the behaviour while some of the
//! servers are down.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use discovery::{Channel, EjectionPolicy, Instance, connection::Http2, registry::StaticRegistry};
use proto::{TrimRequest, trim_client::TrimClient};
use support::TrimServer;
use tonic::Code;

fn channel(fixed: &StaticRegistry) -> discovery::ChannelBuilder {
    Channel::from_registry(std::sync::Arc::new(fixed.clone()), "trim_service")
}

async fn all_ready(channel: &Channel, count: usize) {
    support::eventually(|| channel.status().ready == count).await;
}

async fn call(client: &mut TrimClient<Channel>) -> Result<String, tonic::Status> {
    let request = TrimRequest { s: " a b ".into() };
    let response = client.trim_space(request).await?;
    assert_eq!(response.get_ref().s, "ab");
    let served = response.extensions().get::<discovery::ServedBy>();
    Ok(served.expect("the response names no instance").0.id.clone())
}

async fn spread(client: &mut TrimClient<Channel>, calls: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(call(client).await.unwrap()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn round_robin_spreads_exactly() {
    let servers = TrimServer::start_many(3).await;
    let channel = channel(&support::fixed(&servers)).build().unwrap();
    all_ready(&channel, 3).await;
    let counts = spread(&mut TrimClient::new(channel), 300).await;
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [100, 100, 100]);
}

#[tokio::test]
async fn the_first_call_finds_its_way_without_waiting_for_ready() {
    for eager in [true, false] {
        let servers = TrimServer::start_many(2).await;
        let channel = channel(&support::fixed(&servers))
            .eager(eager)
            .build()
            .unwrap();
        call(&mut TrimClient::new(channel)).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_instance_gets_calls_and_a_removed_one_gets_none() {
    let servers = TrimServer::start_many(3).await;
    let fixed = support::fixed(&servers[..2]);
    let channel = channel(&fixed).build().unwrap();
    all_ready(&channel, 2).await;
    let mut client = TrimClient::new(channel.clone());
    assert_eq!(spread(&mut client, 10).await.len(), 2);
    fixed.set(servers.iter().map(TrimServer::instance));
    all_ready(&channel, 3).await;
    assert_eq!(spread(&mut client, 9).await.len(), 3);
    fixed.set(servers[1..].iter().map(TrimServer::instance));
    support::eventually(|| channel.status().instances == 2).await;
    let counts = spread(&mut client, 20).await;
    assert!(!counts.contains_key(&servers[0].instance().id));
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10]);
}

#[tokio::test]
async fn an_instance_that_refuses_is_passed_over() {
    let servers = TrimServer::start_many(2).await;
    let refusing = Instance::new("127.0.0.1", support::refused_port()).unwrap();
    let fixed = StaticRegistry::new(servers.iter().map(TrimServer::instance).chain([refusing]));
    for eager in [true, false] {
        let mut client = TrimClient::new(channel(&fixed).eager(eager).build().unwrap());
        let counts = spread(&mut client, 40).await;
        assert_eq!(counts.values().sum::<usize>(), 40);
    }
}

#[tokio::test]
async fn a_connection_on_demand_that_hangs_does_not_hold_up_the_others() {
    let server = TrimServer::start().await;
    // The kernel accepts connections to them; no process answers.
    let silent: Vec<_> = (0..12)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let silent_instances = silent.iter().map(|listener| {
        let port = listener.local_addr().unwrap().port();
        Instance::new("127.0.0.1", port).unwrap()
    });
    let fixed = StaticRegistry::new(silent_instances.chain([server.instance()]));
    // The reviews of outlier ejection would look at the set every second.
    let mut ejection = EjectionPolicy::default();
    ejection.enabled = false;
    let channel = channel(&fixed)
        .eager(false)
        .ejection(ejection)
        .connect_timeout(Duration::from_secs(3_600))
        .retry_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let id = call(&mut TrimClient::new(channel)).await.unwrap();
    assert_eq!(id, server.instance().id);
}

#[tokio::test]
async fn an_empty_set_fails_at_once_and_says_so() {
    let channel = channel(&StaticRegistry::new([]))
        .retry_timeout(Duration::from_secs(3_600))
        .build()
        .unwrap();
    // At once: the deadline is an hour.
    let status = call(&mut TrimClient::new(channel)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.message(),
        "no instance of trim_service is registered in the static list"
    );
}

#[tokio::test]
async fn when_all_are_down_the_call_fails_at_once_and_says_why() {
    let down = [support::refused_port(), support::refused_port()]
        .map(|port| Instance::new("127.0.0.1", port).unwrap());
    let channel = channel(&StaticRegistry::new(down.clone()))
        .retry_timeout(Duration::from_secs(3_600))
        .build()
        .unwrap();
    let status = call(&mut TrimClient::new(channel)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    for instance in down {
        assert!(status.message().contains(&instance.id), "{status}");
    }
    assert!(status.message().contains("refused"), "{status}");
}

#[tokio::test]
async fn calls_come_back_when_an_instance_does() {
    let mut server = TrimServer::start().await;
    let channel = channel(&support::fixed([&server])).build().unwrap();
    let mut client = TrimClient::new(channel.clone());
    call(&mut client).await.unwrap();
    server.stop().await;
    support::eventually(|| channel.status().ready == 0).await;
    let status = call(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(&server.instance().id), "{status}");
    server.restart().await;
    all_ready(&channel, 1).await;
    call(&mut client).await.unwrap();
}

#[tokio::test]
async fn a_server_that_ends_gracefully_loses_no_call() {
    let mut servers = TrimServer::start_many(3).await;
    let channel = channel(&support::fixed(&servers)).build().unwrap();
    all_ready(&channel, 3).await;
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = TrimClient::new(channel.clone());
            tokio::spawn(async move { spread(&mut client, 250).await })
        })
        .collect();
    for server in &mut servers {
        server.stop().await;
        server.restart().await;
        // One at a time: two that are down together are another test's subject.
        all_ready(&channel, 3).await;
    }
    for caller in callers {
        let counts = caller.await.unwrap();
        assert_eq!(counts.values().sum::<usize>(), 250);
    }
}

#[tokio::test]
async fn the_background_work_ends_with_the_last_clone() {
    let servers = TrimServer::start_many(1).await;
    let channel = channel(&support::fixed(&servers)).build().unwrap();
    all_ready(&channel, 1).await;
    let clone = channel.clone();
    drop(channel);
    call(&mut TrimClient::new(clone.clone())).await.unwrap();
    assert_eq!(servers[0].connections(), 1);
    drop(clone);
    support::eventually(|| servers[0].connections() == 0).await;
}

#[tokio::test]
async fn a_subset_on_demand_keeps_its_stand_in() {
    let servers = TrimServer::start_many(3).await;
    let fixed = support::fixed(&servers);
    let one_of = |fixed: &StaticRegistry| {
        let builder = channel(fixed).eager(false).subset(1).subset_id("a");
        builder.connect_backoff(Duration::from_millis(10), Duration::from_millis(10))
    };
    let mut first = TrimClient::new(one_of(&fixed).build().unwrap());
    let member = call(&mut first).await.unwrap();
    // The same ID with a port that nothing listens on.
    fixed.set(servers.iter().map(|server| {
        let mut instance = server.instance();
        if instance.id == member {
            instance.port = support::refused_port();
        }
        instance
    }));
    let channel = one_of(&fixed).build().unwrap();
    let mut client = TrimClient::new(channel.clone());
    // The backoff ends many times in between, and the connection that is down is idle again.
    for _ in 0..20 {
        let stand_in = call(&mut client).await;
        if let Ok(id) = stand_in {
            assert_ne!(id, member);
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    assert_eq!(channel.status().instances, 2);
    let stand_in: usize = servers.iter().map(TrimServer::connections_made).sum();
    assert_eq!(stand_in, 2, "the stand-in was dropped and chosen again");
}

#[tokio::test]
async fn a_subset_that_is_down_has_stand_ins_until_it_is_back() {
    let mut servers = TrimServer::start_many(6).await;
    let channel = channel(&support::fixed(&servers))
        .subset(2)
        .subset_id("a")
        .build()
        .unwrap();
    all_ready(&channel, 2).await;
    let mut client = TrimClient::new(channel.clone());
    let members = spread(&mut client, 20).await;
    let is_member = |server: &TrimServer| members.contains_key(&server.instance().id);
    for server in servers.iter_mut().filter(|server| is_member(server)) {
        server.stop().await;
    }
    // The registry still lists them all.
    support::eventually(|| channel.status().instances == 4 && channel.status().ready == 2).await;
    let stand_ins = spread(&mut client, 20).await;
    assert_eq!(stand_ins.len(), 2);
    assert!(stand_ins.keys().all(|id| !members.contains_key(id)));
    for server in servers.iter_mut().filter(|server| is_member(server)) {
        server.restart().await;
    }
    support::eventually(|| channel.status().instances == 2 && channel.status().ready == 2).await;
    assert_eq!(spread(&mut client, 20).await, members);
}

#[tokio::test]
async fn calls_above_the_stream_limit_use_further_connections_up_to_their_limit() {
    let server = TrimServer::start_for(Some(100)).await;
    server.behave(|_| std::future::pending());
    let http2 = Http2::new().with_max_connections(NonZeroUsize::new(3).unwrap());
    let channel = channel(&support::fixed([&server]))
        .factory(http2)
        .retry_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    all_ready(&channel, 1).await;
    let mut calls = tokio::task::JoinSet::new();
    for (begun, connections) in [(100, 1), (250, 3), (300, 3)] {
        while calls.len() < begun {
            let mut client = TrimClient::new(channel.clone());
            calls.spawn(async move { call(&mut client).await });
        }
        support::eventually(|| server.calls() == begun).await;
        assert_eq!(server.connections(), connections);
    }
    // Further calls wait until a call has ended.
    for _ in 0..5 {
        let mut client = TrimClient::new(channel.clone());
        calls.spawn(async move { call(&mut client).await });
    }
    tokio::task::yield_now().await;
    assert_eq!(server.calls(), 300);
    server.recover();
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    call(&mut TrimClient::new(channel.clone())).await.unwrap();
    drop(channel);
    support::eventually(|| server.connections() == 0).await;
}

#[tokio::test]
async fn calls_above_an_instances_stream_limit_go_to_another() {
    let servers = [
        TrimServer::start_for(Some(100)).await,
        TrimServer::start().await,
    ];
    for server in &servers {
        server.behave(|_| std::future::pending());
    }
    let channel = channel(&support::fixed(&servers))
        .retry_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    all_ready(&channel, 2).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let mut client = TrimClient::new(channel.clone());
        calls.spawn(async move { call(&mut client).await });
    }
    support::eventually(|| servers[0].calls() + servers[1].calls() == 300).await;
    assert_eq!((servers[0].calls(), servers[1].calls()), (100, 200));
}
