//! The state of a channel as an API: snapshots, and the events of its life.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod attempts;
mod ejection;
#[path = "../support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use discovery::watch;
use discovery::{
    Channel, ChannelBuilder, ChannelEventKind, Code, ConnectivityState, EarlierAttempts,
    EjectionPhase, EjectionPolicy, EndpointStatus, Events, Instance, ServedBy, Withdrawal,
    registry::{
        InstanceSet, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
    },
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::{
    TrimServer, fixed,
    memory::{Memory, MemoryServer},
};
use tokio::time::sleep;
use tonic::Status;

const TRIM: &str = "/pb.Trim/TrimSpace";
const MS: Duration = Duration::from_millis(1);

/// A registry whose answers the test writes.
#[derive(Clone)]
struct Written(watch::Sender<InstanceSet>);

impl Written {
    fn of(memory: &Memory) -> Self {
        let instances = memory.servers().iter().map(MemoryServer::instance);
        Self(watch::Sender::new(InstanceSet::confirmed(instances)))
    }

    fn fail(&self) {
        let error = RegistryError::Unreachable {
            registry: "written".to_owned(),
            action: "watch trim".to_owned(),
            source: "connection refused".into(),
        };
        let set = self.0.borrow().clone();
        self.0.send_replace(set.with_error(error));
    }

    fn list(&self, instances: impl IntoIterator<Item = Instance>) {
        self.0.send_replace(InstanceSet::confirmed(instances));
    }
}

impl Instancer for Written {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.0.subscribe()
    }
}

impl Registry for Written {
    fn name(&self) -> &'static str {
        "written"
    }

    fn instancer(&self, _: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        Ok(Arc::new(self.clone()))
    }

    fn registration(&self, _: Registration) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(RegistryError::Unsupported {
            registry: self.name().to_owned(),
            action: "register".to_owned(),
        })
    }
}

/// A channel to all servers, whose connections are made.
async fn connected(memory: &Memory, registry: &Written, service: &str) -> Channel {
    let channel = builder(memory, registry, service).build().unwrap();
    let count = memory.servers().len();
    let ready = channel.wait_for(|status| status.ready == count);
    ready.await.unwrap();
    channel
}

fn builder(memory: &Memory, registry: &Written, service: &str) -> ChannelBuilder {
    Channel::from_registry(Arc::new(registry.clone()), service)
        .factory(memory.clone())
        .idempotent([TRIM])
}

async fn call(channel: &Channel) -> Result<(), Status> {
    let mut client = TrimClient::new(channel.clone());
    let request = TrimRequest { s: "x".into() };
    client.trim_space(request).await.map(drop)
}

/// The next event of which this returns something.
async fn next<T>(events: &mut Events, wanted: impl Fn(ChannelEventKind) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = events.next().await.unwrap();
            if let Some(found) = wanted(event.kind) {
                return found;
            }
        }
    };
    let limit = Duration::from_secs(120);
    tokio::time::timeout(limit, found).await.unwrap()
}

fn of(channel: &Channel, port: u16) -> EndpointStatus {
    let endpoints = channel.endpoints();
    let mut found = endpoints.iter().filter(|e| e.instance.port == port);
    found.next().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_fails_and_answers_again_is_two_events_and_its_age_grows() {
    let memory = Memory::with_servers(2);
    let registry = Written::of(&memory);
    let channel = connected(&memory, &registry, "registry").await;
    let mut events = channel.events();
    registry.fail();
    let reason = next(&mut events, |kind| match kind {
        ChannelEventKind::RegistryLost { reason } => Some(reason),
        _ => None,
    })
    .await;
    assert!(reason.contains("connection refused"), "{reason}");
    sleep(Duration::from_secs(30)).await;
    let snapshot = channel.snapshot();
    let now = tokio::time::Instant::now().into_std();
    let age = now - snapshot.status.confirmed.unwrap();
    assert!(age >= Duration::from_secs(30), "{age:?}");
    assert!(snapshot.status.registry_error.is_some());
    assert_eq!(
        (snapshot.registry.as_str(), snapshot.endpoints.len()),
        ("written", 2)
    );
    registry.list(memory.servers().iter().map(MemoryServer::instance));
    let instances = next(&mut events, |kind| match kind {
        ChannelEventKind::RegistryBack { instances } => Some(instances),
        _ => None,
    })
    .await;
    assert_eq!(instances, 2);
}

#[tokio::test(start_paused = true)]
async fn instances_that_come_and_go_are_events_with_their_reason() {
    let memory = Memory::with_servers(4);
    let registry = Written::of(&memory);
    let instance = |index: usize| memory.servers()[index].instance();
    registry.list((0..3).map(instance));
    let channel = builder(&memory, &registry, "come and go").build().unwrap();
    let ready = channel.wait_for(|status| status.ready == 3);
    ready.await.unwrap();
    let mut events = channel.events();
    registry.list((0..4).map(instance));
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(events.next().await.unwrap().kind);
    }
    assert!(
        matches!(&seen[0], ChannelEventKind::Added { instance } if instance.port == 4),
        "{seen:?}"
    );
    assert!(
        matches!(&seen[1], ChannelEventKind::Connected { instance } if instance.port == 4),
        "{seen:?}"
    );

    registry.list((0..3).map(instance));
    let reason = next(&mut events, |kind| match kind {
        ChannelEventKind::Removed { instance, reason } if instance.port == 4 => Some(reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, "no longer registered");

    // All at once: they stay, and say so.
    registry.list([]);
    for _ in 0..3 {
        let withdrawal = next(&mut events, |kind| match kind {
            ChannelEventKind::Protected { withdrawal, .. } => Some(withdrawal),
            _ => None,
        })
        .await;
        assert_eq!(withdrawal, Withdrawal::Removed);
    }
    let kept = of(&channel, 1).protection.unwrap();
    assert_eq!(kept.withdrawal, Withdrawal::Removed);
    registry.list((0..3).map(instance));
    next(&mut events, |kind| {
        matches!(kind, ChannelEventKind::Returned { instance } if instance.port == 1).then_some(())
    })
    .await;
    assert!(of(&channel, 1).protection.is_none());
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_per_instance_with_their_rate_and_latencies() {
    let memory = Memory::with_servers(2);
    let registry = Written::of(&memory);
    let channel = connected(&memory, &registry, "figures").await;
    memory.servers()[1].behave(|_| async {
        sleep(40 * MS).await;
        Ok(())
    });
    for _ in 0..200 {
        call(&channel).await.unwrap();
        sleep(10 * MS).await;
    }
    let (fast, slow) = (of(&channel, 1).calls, of(&channel, 2).calls);
    assert_eq!((fast.ended, slow.ended), (100, 100), "round robin");
    assert_eq!((fast.failed, slow.failed), (0, 0));
    let near = |time: Option<Duration>, millis: f64| {
        let seen = time.unwrap().as_secs_f64() * 1e3;
        assert!(
            (seen / millis - 1.0).abs() <= 0.125,
            "{seen} is not {millis}"
        );
    };
    near(fast.p50, 1.0);
    near(slow.p50, 41.0);
    near(slow.p99, 41.0);
    // 100 calls in 6.2 s.
    assert!((14.0..18.0).contains(&slow.per_second), "{slow:?}");
    let snapshot = channel.snapshot();
    assert_eq!(snapshot.calls.ok, 200);
    assert_eq!(snapshot.calls.attempts_ok, 200);
    assert_eq!(snapshot.policy.settings.balancer, "round-robin");
    assert_eq!(snapshot.policy.retry.max_attempts, 3);
    assert!(snapshot.policy.retry.idempotent.contains(TRIM));

    memory.servers()[1].behave(|_| async { Err(Status::unavailable("faulty")) });
    let before = snapshot.retry_tokens;
    for _ in 0..4 {
        call(&channel).await.unwrap();
    }
    let after = channel.snapshot();
    assert_eq!(of(&channel, 2).calls.failed, 2);
    assert_eq!(after.calls.retries, 2);
    assert!(after.retry_tokens < before, "{before} before");
}

#[tokio::test]
async fn a_server_that_stops_and_starts_again_is_lost_and_connected() {
    let mut servers = TrimServer::start_many(2).await;
    let channel = Channel::from_registry(Arc::new(fixed(&servers)), "trim_service")
        .build()
        .unwrap();
    let ready = channel.wait_for(|status| status.ready == 2);
    ready.await.unwrap();
    let mut events = channel.events();
    let port = servers[0].instance().port;
    servers[0].stop().await;
    let is = |kind: &ChannelEventKind| kind.instance().is_some_and(|i| i.port == port);
    next(&mut events, |kind| {
        (matches!(kind, ChannelEventKind::Disconnected { .. }) && is(&kind)).then_some(())
    })
    .await;
    let reason = next(&mut events, |kind| match &kind {
        ChannelEventKind::Unreachable { reason, .. } if is(&kind) => Some(reason.clone()),
        _ => None,
    })
    .await;
    assert!(reason.contains("refused"), "{reason}");
    let down = of(&channel, port);
    assert_eq!(down.connectivity, ConnectivityState::TransientFailure);
    assert!(down.last_error.is_some());
    servers[0].restart().await;
    next(&mut events, |kind| {
        (matches!(kind, ChannelEventKind::Connected { .. }) && is(&kind)).then_some(())
    })
    .await;
    drop(channel);
    // The events end with the channel.
    while events.next().await.is_ok() {}
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn a_snapshot_and_an_event_are_written_with_seconds_and_words() {
    let memory = Memory::with_servers(2);
    let registry = Written::of(&memory);
    let channel = connected(&memory, &registry, "written").await;
    let mut events = channel.events();
    call(&channel).await.unwrap();
    registry.fail();
    next(&mut events, |kind| {
        matches!(kind, ChannelEventKind::RegistryLost { .. }).then_some(())
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    let json = serde_json::to_value(channel.snapshot()).unwrap();
    assert_eq!(json["service"], "written");
    let age = json["status"]["confirmed_seconds_ago"].as_f64().unwrap();
    assert!((2.0..3.0).contains(&age), "{age}");
    let error = json["status"]["registry_error"].as_str().unwrap();
    assert!(error.contains("connection refused"), "{error}");
    let endpoint = &json["endpoints"][0];
    assert_eq!(endpoint["instance"]["port"], 1);
    assert_eq!(endpoint["instance"]["health"], "unknown");
    assert_eq!(endpoint["connectivity"], "ready");
    assert_eq!(endpoint["ejection"], serde_json::Value::Null);
    assert_eq!(json["policy"]["retry"]["codes"][0], "UNAVAILABLE");
    assert_eq!(json["policy"]["retry"]["idempotent"][0], TRIM);
    assert_eq!(json["policy"]["ejection"]["base_time"], 3.0);
    assert_eq!(json["policy"]["balancer"], "round-robin");
    let ended = |index: usize| json["endpoints"][index]["calls"]["ended"].as_u64().unwrap();
    assert_eq!(ended(0) + ended(1), 1);

    registry.list([memory.servers()[0].instance()]);
    let removed = loop {
        let event = events.next().await.unwrap();
        if matches!(event.kind, ChannelEventKind::Removed { .. }) {
            break serde_json::to_value(event).unwrap();
        }
    };
    assert_eq!(removed["event"], "removed");
    assert_eq!(removed["instance"]["port"], 2);
    assert_eq!(removed["reason"], "no longer registered");
    assert!(removed["time"].as_f64().unwrap() > 1.7e9);
}
