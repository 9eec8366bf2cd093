//! Health watching (gRFC A17): an instance receives calls only while its own health service reports
//! SERVING, which the registry does not know.
//!
//! Servers are in memory and the clock is paused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{sync::Arc, time::Duration};

use discovery::{
    CallError, CallErrorKind, CallOptions, Channel, ChannelBuilder, ChannelEventKind,
    ConnectivityState, EndpointStatus, WatchedHealth,
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::{
    fallible::Fallible,
    memory::{Health, Memory, MemoryServer},
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

const MS: Duration = Duration::from_millis(1);
const SERVICE: &str = "pb.Trim";

fn builder(memory: &Memory) -> ChannelBuilder {
    Channel::from_registry(Arc::new(memory.registry()), "trim_service")
        .factory(memory.clone())
        .health_service(SERVICE)
}

async fn ready(builder: ChannelBuilder, count: usize) -> (Channel, TrimClient<Channel>) {
    let channel = builder.build().unwrap();
    support::eventually(|| channel.status().ready == count).await;
    (channel.clone(), TrimClient::new(channel))
}

async fn call(client: &mut TrimClient<Channel>) -> Result<(), Status> {
    client.trim_space(TrimRequest::default()).await.map(drop)
}

/// The calls that each server receives of so many.
async fn counts(memory: &Memory, client: &mut TrimClient<Channel>, calls: usize) -> Vec<usize> {
    let before: Vec<_> = memory.servers().iter().map(MemoryServer::calls).collect();
    for _ in 0..calls {
        call(client).await.unwrap();
    }
    let servers = memory.servers().iter().zip(before);
    servers
        .map(|(server, before)| server.calls() - before)
        .collect()
}

fn status_of(channel: &Channel, port: u16) -> EndpointStatus {
    let all = channel.endpoints();
    let found = all.into_iter().find(|one| one.instance.port == port);
    found.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_reports_not_serving_receives_no_calls_at_once_and_returns_at_once() {
    let memory = Memory::with_servers(3);
    let (channel, mut client) = ready(builder(&memory), 3).await;
    assert_eq!(memory.servers()[0].watched()[0].1, SERVICE);
    for unhealthy in [Health::NotServing, Health::Unknown] {
        assert_eq!(counts(&memory, &mut client, 9).await, [3, 3, 3]);
        let mut events = channel.events();
        let begun = Instant::now();
        memory.servers()[0].report(unhealthy);
        let seen = channel.wait_for(|status| status.not_serving == 1);
        assert_eq!(seen.await.unwrap().ready, 2);
        assert!(begun.elapsed() <= MS, "{:?}", begun.elapsed());
        assert_eq!(counts(&memory, &mut client, 10).await, [0, 5, 5]);
        let status = status_of(&channel, 1);
        assert_eq!(status.health, WatchedHealth::NotServing);
        assert_eq!(status.connectivity, ConnectivityState::TransientFailure);
        let event = events.next().await.unwrap().kind;
        assert!(
            matches!(&event, ChannelEventKind::NotServing { instance, reason }
                if instance.port == 1 && reason.contains("SERVING")),
            "{event:?}"
        );

        let begun = Instant::now();
        memory.servers()[0].report(Health::Serving);
        let back = channel.wait_for(|status| status.ready == 3);
        assert_eq!(back.await.unwrap().not_serving, 0);
        assert!(begun.elapsed() <= MS, "{:?}", begun.elapsed());
        let event = events.next().await.unwrap().kind;
        assert!(
            matches!(event, ChannelEventKind::Serving { .. }),
            "{event:?}"
        );
        assert_eq!(status_of(&channel, 1).health, WatchedHealth::Serving);
    }
    // One connection and one watch each.
    assert_eq!(memory.servers()[0].connections_made(), 1);
    assert_eq!(memory.servers()[0].watched().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_on_their_way_to_an_instance_that_stops_serving_are_not_cancelled() {
    let memory = Memory::with_servers(1);
    let (channel, mut client) = ready(builder(&memory), 1).await;
    let server = memory.servers()[0].clone();
    server.behave(|_| async {
        sleep(50 * MS).await;
        Ok(())
    });
    let on_its_way = tokio::spawn(async move { call(&mut client).await });
    support::eventually(|| server.calls() == 1).await;
    server.report(Health::NotServing);
    let unserved = channel.wait_for(|status| status.not_serving == 1);
    unserved.await.unwrap();
    on_its_way.await.unwrap().unwrap();
    assert_eq!(server.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_receives_no_calls_before_its_first_report() {
    let memory = Memory::with_servers(2);
    memory.servers()[0].report(Health::Silent);
    let (channel, mut client) = ready(builder(&memory), 1).await;
    sleep(100 * MS).await;
    let status = status_of(&channel, 1);
    assert_eq!(status.health, WatchedHealth::Awaited);
    assert_eq!(status.connectivity, ConnectivityState::Connecting);
    assert_eq!(counts(&memory, &mut client, 10).await, [0, 10]);
    memory.servers()[0].report(Health::Serving);
    let both = channel.wait_for(|status| status.ready == 2);
    both.await.unwrap();
    assert_eq!(counts(&memory, &mut client, 10).await, [5, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_first_report_as_for_the_connection() {
    let memory = Memory::with_servers(1);
    memory.servers()[0].report(Health::Silent);
    for eager in [true, false] {
        let channel = builder(&memory).eager(eager).build().unwrap();
        let mut client = TrimClient::new(channel);
        let error = call(&mut client).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        assert!(error.message().contains("reported its health"), "{error}");
        let server = memory.servers()[0].clone();
        let begun = Instant::now();
        let later = tokio::spawn(async move {
            sleep(70 * MS).await;
            server.report(Health::Serving);
        });
        call(&mut client).await.unwrap();
        let waited = begun.elapsed();
        assert!(waited >= 70 * MS && waited < 80 * MS, "{waited:?}");
        later.await.unwrap();
        memory.servers()[0].report(Health::Silent);
    }
}

#[tokio::test(start_paused = true)]
async fn while_no_instance_serves_calls_fail_at_once_or_wait_if_they_are_to_wait_for_ready() {
    let memory = Memory::with_servers(2);
    let (channel, mut client) = ready(builder(&memory), 2).await;
    for server in memory.servers() {
        server.report(Health::NotServing);
    }
    let none = channel.wait_for(|status| status.not_serving == 2);
    none.await.unwrap();
    let begun = Instant::now();
    let error = call(&mut client).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(
        CallError::of(&error).unwrap().kind,
        CallErrorKind::NoneServing
    );
    for part in ["none of the 2 instances", "reports SERVING"] {
        assert!(error.message().contains(part), "{error}");
    }

    let server = memory.servers()[1].clone();
    let later = tokio::spawn(async move {
        sleep(200 * MS).await;
        server.report(Health::Serving);
    });
    let mut request = Request::new(TrimRequest::default());
    let waiting = CallOptions::default().with_wait_for_ready(true);
    request.extensions_mut().insert(waiting);
    client.trim_space(request).await.unwrap();
    assert!(begun.elapsed() >= 200 * MS);
    later.await.unwrap();
    assert_eq!(memory.servers()[1].calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_without_the_health_service_receives_calls_and_is_asked_once() {
    let memory = Memory::with_servers(2);
    memory.servers()[0].report(Health::NoService);
    let (channel, mut client) = ready(builder(&memory), 2).await;
    assert_eq!(counts(&memory, &mut client, 10).await, [5, 5]);
    assert_eq!(status_of(&channel, 1).health, WatchedHealth::NoService);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(memory.servers()[0].watched().len(), 1);
    assert_eq!(channel.status().ready, 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_begins_again_at_once_and_then_after_growing_delays() {
    let memory = Memory::with_servers(2);
    let delays = (100 * MS, 750 * MS);
    let builder = builder(&memory).connect_backoff(delays.0, delays.1);
    let (channel, mut client) = ready(builder, 2).await;
    sleep(Duration::from_secs(60)).await;
    let broken = Instant::now();
    let server = &memory.servers()[0];
    server.report(Health::Broken);
    let interrupted = channel.wait_for(|status| status.not_serving == 1);
    interrupted.await.unwrap();
    assert_eq!(status_of(&channel, 1).health, WatchedHealth::Interrupted);
    assert_eq!(counts(&memory, &mut client, 10).await, [0, 10]);
    sleep(Duration::from_secs(3)).await;
    let watched = server.watched();
    let begun: Vec<_> = watched[1..].iter().map(|(at, _)| *at - broken).collect();
    // After 0, 100, 200, 400 and 750 ms, with 20 % of jitter and a millisecond for each answer.
    for (index, expected) in [0, 100, 300, 700, 1_450].into_iter().enumerate() {
        let seen = begun[index].as_secs_f64() * 1e3;
        let expected = f64::from(expected);
        let near = (0.79 * expected..1.21 * expected + 7.0).contains(&seen);
        assert!(near, "attempt {index} after {begun:?}");
    }
    server.report(Health::Serving);
    let back = channel.wait_for(|status| status.ready == 2);
    back.await.unwrap();
    assert_eq!(counts(&memory, &mut client, 10).await, [5, 5]);
}

#[tokio::test(start_paused = true)]
async fn the_watch_of_an_instance_that_is_removed_ends_with_its_last_call() {
    let memory = Memory::with_servers(2);
    let registry = memory.registry();
    let builder = Channel::from_registry(Arc::new(registry.clone()), "trim_service")
        .factory(memory.clone())
        .health_service("");
    let (channel, client) = ready(builder, 2).await;
    assert_eq!(memory.servers()[0].open_watches(), 1);
    registry.set([memory.servers()[1].instance()]);
    let removed = channel.wait_for(|status| status.instances == 1);
    removed.await.unwrap();
    support::eventually(|| memory.servers()[0].open_watches() == 0).await;
    assert_eq!(memory.servers()[1].open_watches(), 1);
    drop((channel, client));
    support::eventually(|| memory.servers()[1].open_watches() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn instances_that_the_registry_lost_are_used_before_calls_fail_as_long_as_they_serve() {
    let memory = Memory::with_servers(4);
    let registry = memory.registry();
    let builder = Channel::from_registry(Arc::new(Fallible(registry.clone())), "trim_service")
        .factory(memory.clone())
        .health_service(SERVICE);
    let (channel, mut client) = ready(builder, 4).await;
    // Not kept: it does not serve when the registry loses it.
    memory.servers()[3].report(Health::NotServing);
    let unserved = channel.wait_for(|status| status.not_serving == 1);
    unserved.await.unwrap();
    registry.set([memory.servers()[0].instance()]);
    let lost = channel.wait_for(|status| status.listed == 1);
    assert_eq!(lost.await.unwrap().instances, 3);
    assert_eq!(counts(&memory, &mut client, 10).await, [10, 0, 0, 0]);
    memory.servers()[0].report(Health::NotServing);
    let unserved = channel.wait_for(|status| status.not_serving == 1);
    unserved.await.unwrap();
    assert_eq!(counts(&memory, &mut client, 10).await, [0, 5, 5, 0]);
    // One of them stops serving: it goes at once.
    let begun = Instant::now();
    memory.servers()[1].report(Health::NotServing);
    let gone = channel.wait_for(|status| status.instances == 2);
    gone.await.unwrap();
    assert!(begun.elapsed() <= MS);
    assert_eq!(counts(&memory, &mut client, 10).await, [0, 0, 10, 0]);
}

#[cfg(feature = "service-config")]
#[tokio::test(start_paused = true)]
async fn the_service_config_begins_and_ends_the_watching_without_a_lost_call() {
    use discovery::config::ServiceConfig;

    let memory = Memory::with_servers(2);
    let builder =
        Channel::from_registry(Arc::new(memory.registry()), "trim_service").factory(memory.clone());
    let (channel, mut client) = ready(builder, 2).await;
    memory.servers()[0].report(Health::NotServing);
    assert_eq!(counts(&memory, &mut client, 10).await, [5, 5]);
    assert_eq!(status_of(&channel, 1).health, WatchedHealth::Unwatched);

    let json = r#"{"healthCheckConfig": {"serviceName": "pb.Trim"}}"#;
    let config = ServiceConfig::parse(json).unwrap();
    assert_eq!(config.warnings(), []);
    channel.set_service_config(config).unwrap();
    let unserved = channel.wait_for(|status| status.not_serving == 1);
    unserved.await.unwrap();
    assert_eq!(counts(&memory, &mut client, 10).await, [0, 10]);
    assert_eq!(memory.servers()[0].watched()[0].1, SERVICE);
    let settings = channel.snapshot().policy.settings;
    assert_eq!(settings.health_service.as_deref(), Some(SERVICE));
    let again = ServiceConfig::parse(&channel.effective_config()).unwrap();

    channel
        .set_service_config(ServiceConfig::default())
        .unwrap();
    let all = channel.wait_for(|status| status.ready == 2);
    all.await.unwrap();
    assert_eq!(counts(&memory, &mut client, 10).await, [5, 5]);
    support::eventually(|| memory.servers()[0].open_watches() == 0).await;

    // The policy in effect has said it.
    channel.set_service_config(again).unwrap();
    let unserved = channel.wait_for(|status| status.not_serving == 1);
    unserved.await.unwrap();
    assert_eq!(memory.servers()[0].connections_made(), 1);
}
