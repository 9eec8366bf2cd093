//! The add service with three real trim instances and a real Consul under continuous calls: no call
//! fails when an instance or Consul fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::time::Duration;

use serde_json::Value;
use testkit::{AddService, Consul, Signal, TrimService, add_service, eventually, trim_service};
use tokio::time::Instant;

use crate::support::{Http, LIMIT, calls::Calls};

struct World {
    consul: Consul,
    trims: Vec<TrimService>,
    add: AddService,
    calls: Calls,
}

impl World {
    /// Three instances that all receive calls.
    async fn start() -> Self {
        let consul = Consul::start().await.unwrap();
        let mut trims = Vec::new();
        for _ in 0..3 {
            trims.push(trim(&consul, &[]).await);
        }
        let add = add_service(&["--consul", &consul.address()]).await.unwrap();
        let http = Http::new(&add);
        http.until_ready(3).await;
        let world = Self {
            calls: Calls::start(&http),
            consul,
            trims,
            add,
        };
        world.reach_all().await;
        world
    }

    async fn reach_all(&self) -> Duration {
        let ids: Vec<_> = self.trims.iter().map(|trim| &*trim.id).collect();
        self.calls.reach(&ids).await
    }

    async fn end(mut self) {
        self.calls.end().await;
        self.add.process.signal(Signal::SIGTERM).unwrap();
        assert_eq!(self.add.process.exit(LIMIT).await.unwrap().code(), Some(0));
    }
}

async fn trim(consul: &Consul, flags: &[&str]) -> TrimService {
    let address = consul.address();
    let common = ["--consul", &address, "--check-interval", "1s"];
    trim_service(&[&common[..], flags].concat()).await.unwrap()
}

#[tokio::test]
async fn an_instance_ends_by_sigterm() {
    let mut world = World::start().await;
    let mut gone = world.trims.remove(0);
    gone.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(gone.process.exit(LIMIT).await.unwrap().code(), Some(0));
    world.calls.leave(&gone.id).await;
    world.reach_all().await;
    world.end().await;
}

#[tokio::test]
async fn instances_are_replaced_one_after_the_other() {
    let mut world = World::start().await;
    for _ in 0..3 {
        let new = trim(&world.consul, &["--drain", "400ms"]).await;
        world.calls.reach(&[&new.id]).await;
        world.trims.push(new);
        let mut old = world.trims.remove(0);
        old.process.signal(Signal::SIGTERM).unwrap();
        assert_eq!(old.process.exit(LIMIT).await.unwrap().code(), Some(0));
    }
    world.reach_all().await;
    world.end().await;
}

#[tokio::test]
async fn an_instance_is_killed_and_comes_back_on_the_same_port() {
    let mut world = World::start().await;
    let mut gone = world.trims.remove(1);
    gone.process.signal(Signal::SIGKILL).unwrap();
    gone.process.exit(LIMIT).await.unwrap();
    world.calls.leave(&gone.id).await;
    world.reach_all().await;
    let port = gone.grpc.port().to_string();
    let back = trim(&world.consul, &["--port", &port]).await;
    assert_eq!(back.id, gone.id);
    world.calls.reach(&[&back.id]).await;
    world.end().await;
}

#[tokio::test]
async fn an_instance_hangs_and_goes_on() {
    let world = World::start().await;
    let hung = &world.trims[2];
    hung.process.signal(Signal::SIGSTOP).unwrap();
    world.calls.leave(&hung.id).await;
    hung.process.signal(Signal::SIGCONT).unwrap();
    world.calls.reach(&[&hung.id]).await;
    world.end().await;
}

#[tokio::test]
async fn consul_hangs_and_goes_on() {
    let world = World::start().await;
    world.consul.pause().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        world.calls.more(100).await;
    }
    world.reach_all().await;
    world.consul.resume().unwrap();
    let new = trim(&world.consul, &[]).await;
    world.calls.reach(&[&new.id]).await;
    world.reach_all().await;
    world.end().await;
}

#[tokio::test]
async fn consul_is_killed_and_restarts_empty() {
    let mut world = World::start().await;
    world.consul.kill().await.unwrap();
    world.calls.more(200).await;
    world.consul.restart().await.unwrap();
    let look = async || {
        let entries = world
            .consul
            .get("/v1/health/service/trim_service?passing=1")
            .await;
        match entries.unwrap_or_default().as_array().map_or(0, Vec::len) {
            3 => Ok(()),
            other => Err(other),
        }
    };
    let ((), took) = eventually("all registered again", LIMIT, look)
        .await
        .unwrap();
    assert!(
        took < Duration::from_secs(5),
        "registered again {took:?} after Consul was back"
    );
    world.reach_all().await;
    // Changes from now on come from the restarted Consul.
    let mut new = trim(&world.consul, &["--drain", "400ms"]).await;
    world.calls.reach(&[&new.id]).await;
    new.process.signal(Signal::SIGTERM).unwrap();
    new.process.exit(LIMIT).await.unwrap();
    world.calls.leave(&new.id).await;
    world.end().await;
}

#[tokio::test]
async fn an_instance_in_maintenance_gets_no_calls_although_it_runs() {
    let world = World::start().await;
    let out = &world.trims[0];
    let path = format!("/v1/agent/service/maintenance/{}?enable=", out.id);
    world
        .consul
        .put(&format!("{path}true&reason=test"), &Value::Null)
        .await
        .unwrap();
    world.calls.leave(&out.id).await;
    let others: Vec<_> = world.trims[1..].iter().map(|trim| &*trim.id).collect();
    world.calls.reach(&others).await;
    world
        .consul
        .put(&format!("{path}false"), &Value::Null)
        .await
        .unwrap();
    world.calls.reach(&[&out.id]).await;
    world.end().await;
}

#[tokio::test]
async fn a_new_instance_gets_calls_and_a_deregistered_one_none() {
    let world = World::start().await;
    // It deregisters at once and keeps serving for seconds.
    let new = trim(&world.consul, &["--drain", "60s"]).await;
    world.calls.reach(&[&new.id]).await;
    new.process.signal(Signal::SIGTERM).unwrap();
    new.process
        .stderr_line("deregistered", LIMIT)
        .await
        .unwrap();
    world.calls.leave(&new.id).await;
    // It still serves.
    support::connect(new.grpc).await;
    world.reach_all().await;
    world.end().await;
}

#[tokio::test]
async fn two_of_three_are_killed_together() {
    let mut world = World::start().await;
    let mut gone: Vec<_> = world.trims.drain(..2).collect();
    for trim in &gone {
        trim.process.signal(Signal::SIGKILL).unwrap();
    }
    for trim in &mut gone {
        trim.process.exit(LIMIT).await.unwrap();
        world.calls.leave(&trim.id).await;
    }
    world.reach_all().await;
    world.end().await;
}
