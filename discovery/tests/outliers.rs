//! Outlier ejection and removal protection: a faulty instance receives no calls until it recovers, and
//! a registry that suddenly lists fewer instances is not followed at once.
//!
//! Most tests run on servers in memory and a paused clock; three run on sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{future::pending, sync::Arc, time::Duration};

use discovery::{
    Channel, ChannelBuilder, EjectionPolicy, RemovalProtection, registry::StaticRegistry,
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::{
    TrimServer,
    fallible::Fallible,
    memory::{Memory, MemoryServer},
};
use tokio::time::Instant;
use tonic::Status;

const TRIM: &str = "/pb.Trim/TrimSpace";

fn channel(registry: &StaticRegistry) -> ChannelBuilder {
    let ejection = EjectionPolicy::default()
        .with_base_time(Duration::from_secs(1))
        .with_slow_start(Duration::from_millis(200));
    Channel::from_registry(Arc::new(Fallible(registry.clone())), "trim_service")
        .idempotent([TRIM])
        .ejection(ejection)
        .retry_timeout(Duration::from_secs(20))
        .attempt_timeout(Duration::from_millis(100))
}

/// A channel to these servers in memory.
fn in_memory(memory: &Memory, registry: &StaticRegistry) -> ChannelBuilder {
    channel(registry).factory(memory.clone())
}

async fn ready(builder: ChannelBuilder, count: usize) -> (Channel, TrimClient<Channel>) {
    let channel = builder.build().unwrap();
    support::eventually(|| channel.status().ready == count).await;
    (channel.clone(), TrimClient::new(channel))
}

async fn call(client: &mut TrimClient<Channel>) -> Result<(), Status> {
    client
        .trim_space(TrimRequest { s: "x".into() })
        .await
        .map(drop)
}

/// Calls until `condition` holds; no call may fail.
async fn calls_until(client: &mut TrimClient<Channel>, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never came true");
        call(client).await.unwrap();
    }
}

#[tokio::test]
async fn an_instance_that_answers_only_errors_receives_no_calls_until_it_recovers() {
    let servers = TrimServer::start_many(3).await;
    let (_, mut client) = ready(channel(&support::fixed(&servers)), 3).await;
    let faulty = &servers[0];
    calls_until(&mut client, || faulty.calls() > 3).await;
    faulty.behave(|_| async { Err(Status::unavailable("faulty")) });
    let before = faulty.calls();
    for _ in 0..120 {
        call(&mut client).await.unwrap();
    }
    // Five in a row eject; the others are trial calls, one per probation.
    let received = faulty.calls() - before;
    assert!(
        (5..=12).contains(&received),
        "the faulty instance received {received} of 120 calls"
    );
    faulty.recover();
    let before = faulty.calls();
    calls_until(&mut client, || faulty.calls() > before + 20).await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_hangs_receives_no_calls_until_it_answers() {
    let memory = Memory::with_servers(2);
    let (_, mut client) = ready(in_memory(&memory, &memory.registry()), 2).await;
    let faulty = &memory.servers()[1];
    calls_until(&mut client, || faulty.calls() > 3).await;
    faulty.behave(|_| pending());
    let before = faulty.calls();
    for _ in 0..60 {
        call(&mut client).await.unwrap();
    }
    let received = faulty.calls() - before;
    assert!(
        (3..=8).contains(&received),
        "the faulty instance received {received} of 60 calls"
    );
    // Its health service answers, so each probation has a trial call, which fails.
    let before = faulty.calls();
    calls_until(&mut client, || faulty.calls() > before + 1).await;
    faulty.recover();
    let before = faulty.calls();
    calls_until(&mut client, || faulty.calls() > before + 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_an_answer_is_replaced_and_the_new_one_gets_its_time() {
    let memory = Memory::with_servers(2);
    let silent = &memory.servers()[1];
    silent.fall_silent();
    let (_, mut client) = ready(in_memory(&memory, &memory.registry()), 2).await;
    // Three unanswered calls eject. The calls after them take a millisecond each.
    for _ in 0..20 {
        call(&mut client).await.unwrap();
    }
    let ejected = Instant::now();
    let mut made = Vec::new();
    while ejected.elapsed() < Duration::from_secs(12) {
        if silent.connections_made() > made.len() {
            made.push(ejected.elapsed().as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Ejected for one second, and a probe of one second without an answer: a new connection. It is
    // probed at once, another second, and then has the three seconds of the third ejection and their
    // probe.
    assert_eq!(made, [0, 2, 7]);
}

#[tokio::test]
async fn when_all_are_faulty_all_are_used() {
    let servers = TrimServer::start_many(2).await;
    let (_, mut client) = ready(channel(&support::fixed(&servers)), 2).await;
    for server in &servers {
        server.behave(|_| async { Err(Status::unavailable("faulty")) });
    }
    for _ in 0..50 {
        let status = call(&mut client).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
    servers.iter().for_each(TrimServer::recover);
    // The first call after the recovery succeeds.
    call(&mut client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_suddenly_lists_no_instance_is_not_followed_while_connections_work() {
    let memory = Memory::with_servers(3);
    let registry = memory.registry();
    let protection = RemovalProtection::default().with_limit(Duration::from_secs(3));
    let builder = in_memory(&memory, &registry).protection(protection);
    let (channel, mut client) = ready(builder, 3).await;
    let begun = Instant::now();
    registry.set([]);
    while begun.elapsed() < Duration::from_millis(2_990) {
        call(&mut client).await.unwrap();
    }
    support::eventually(|| channel.status().instances == 0).await;
    assert_eq!(begun.elapsed().as_secs(), 3);
    let status = call(&mut client).await.unwrap_err();
    assert!(status.message().contains("is registered"), "{status}");
    registry.set(memory.servers().iter().map(MemoryServer::instance));
    support::eventually(|| channel.status().ready == 3).await;
    call(&mut client).await.unwrap();
}

#[tokio::test]
async fn instances_missing_from_a_much_smaller_answer_are_a_last_resort() {
    let mut servers = TrimServer::start_many(3).await;
    let fixed = support::fixed(&servers);
    let (channel, mut client) = ready(channel(&fixed), 3).await;
    fixed.set([servers[0].instance()]);
    support::eventually(|| channel.status().listed == 1).await;
    let before: Vec<_> = servers.iter().map(TrimServer::calls).collect();
    for _ in 0..10 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(servers[0].calls(), before[0] + 10);
    servers[0].stop().await;
    for _ in 0..10 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(
        servers[1].calls() + servers[2].calls(),
        before[1] + before[2] + 10
    );
}

#[tokio::test(start_paused = true)]
async fn without_protection_a_removal_takes_effect_at_once() {
    let memory = Memory::with_servers(2);
    let registry = memory.registry();
    let off = RemovalProtection::default().with_limit(Duration::ZERO);
    let builder = in_memory(&memory, &registry).protection(off);
    let (channel, mut client) = ready(builder, 2).await;
    let begun = Instant::now();
    registry.set([]);
    let gone = channel.wait_for(|status| status.instances == 0);
    gone.await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(10));
    assert!(call(&mut client).await.is_err());
}

#[tokio::test]
async fn a_removal_from_a_static_list_takes_effect_at_once() {
    let servers = TrimServer::start_many(3).await;
    let list = support::fixed(&servers);
    let builder = Channel::from_registry(Arc::new(list.clone()), "trim_service");
    let (channel, mut client) = ready(builder, 3).await;
    list.set([servers[0].instance()]);
    support::eventually(|| channel.status().listed == 1).await;
    // The removed instances are not kept as a last resort, though their connections work.
    assert_eq!(channel.status().instances, 1);
    call(&mut client).await.unwrap();
    list.set([]);
    support::eventually(|| channel.status().listed == 0).await;
    assert_eq!(channel.status().instances, 0);
    assert!(call(&mut client).await.is_err());
}
