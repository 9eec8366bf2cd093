//! The time of a method, learnt from its answers: a hung instance is noticed at once, and slowness that
//! is not one instance's ejects nobody and does not multiply the load.
//!
//! A simulated load of 200 calls a second on servers in memory, with a paused clock. `LEARNT_MINUTES` is
//! the simulated time of each kind of slowness; the default is chosen for the time that a test may take.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the figures of a run are its result")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use discovery::{Channel, balance::Policy};
use fastrand::Rng;
use proto::{TrimRequest, trim_client::TrimClient};
use support::memory::{Memory, MemoryServer};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, sleep_until},
};

const TRIM: &str = "/pb.Trim/TrimSpace";
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// 200 calls a second.
const PACE: Duration = Duration::from_millis(5);
/// The order of the first gives every instance calls in turn. That of the second gives runs of calls to one
/// instance, which are what an ejection looks for.
const BALANCERS: [Policy; 2] = [Policy::RoundRobin, Policy::Random];

/// The simulated time of each kind of slowness.
fn length() -> Duration {
    let minutes = std::env::var("LEARNT_MINUTES").ok();
    60 * SECOND * minutes.map_or(1, |minutes| minutes.parse().unwrap())
}

/// Servers with this latency, a channel to them, and the calls that it makes.
struct World {
    memory: Memory,
    channel: Channel,
    calls: Arc<Mutex<Calls>>,
}

#[derive(Default)]
struct Calls {
    made: usize,
    failed: Vec<String>,
    worst: Duration,
}

impl World {
    /// `latency` is asked for the time of each attempt.
    async fn start(
        servers: u16,
        balancer: Policy,
        idempotent: bool,
        latency: impl Fn(&mut Rng) -> Duration + Send + Sync + 'static,
    ) -> Self {
        let memory = Memory::with_servers(servers);
        let rng = Mutex::new(Rng::with_seed(servers.into()));
        let latency = Arc::new(move || latency(&mut rng.lock().unwrap()));
        for server in memory.servers() {
            let latency = Arc::clone(&latency);
            server.behave(move |_| {
                let time = latency();
                async move {
                    sleep(time).await;
                    Ok(())
                }
            });
        }
        let builder = Channel::from_registry(Arc::new(memory.registry()), "trim_service")
            .factory(memory.clone())
            .balancer(balancer);
        let builder = if idempotent {
            builder.idempotent([TRIM])
        } else {
            builder
        };
        let channel = builder.retry_timeout(10 * SECOND).build().unwrap();
        support::eventually(|| channel.status().ready == usize::from(servers)).await;
        Self {
            memory,
            channel,
            calls: Arc::default(),
        }
    }

    /// Makes calls for this long, whatever their answers are.
    async fn load(&self, time: Duration) {
        let mut under_way = JoinSet::new();
        let begun = Instant::now();
        let mut pace = interval(PACE);
        while begun.elapsed() < time {
            pace.tick().await;
            let (channel, calls) = (self.channel.clone(), Arc::clone(&self.calls));
            under_way.spawn(async move {
                let begun = Instant::now();
                let result = TrimClient::new(channel)
                    .trim_space(TrimRequest::default())
                    .await;
                let mut calls = calls.lock().unwrap();
                calls.made += 1;
                calls.worst = calls.worst.max(begun.elapsed());
                calls
                    .failed
                    .extend(result.err().map(|error| error.to_string()));
            });
            while under_way.try_join_next().is_some() {}
        }
        under_way.join_all().await;
    }

    /// Makes calls for the time of a kind of slowness, and asserts that no instance is ejected meanwhile,
    /// and that at most one attempt in twenty is one more than the call needs.
    async fn survives(&self, name: &str) {
        let channel = self.channel.clone();
        let watch = tokio::spawn(async move {
            loop {
                if let Some(one) = channel.endpoints().iter().find(|it| it.ejected) {
                    return one.instance.to_string();
                }
                // An ejection lasts longer.
                sleep(SECOND / 2).await;
            }
        });
        let attempts =
            |memory: &Memory| -> usize { memory.servers().iter().map(MemoryServer::calls).sum() };
        self.load(length()).await;
        assert!(!watch.is_finished(), "{name}: {:?} is ejected", watch.await);
        watch.abort();
        let calls = self.calls.lock().unwrap();
        assert!(calls.failed.is_empty(), "{name}: {:?}", calls.failed);
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let amplification = attempts(&self.memory) as f64 / calls.made as f64;
        assert!(
            amplification <= 1.05,
            "{name}: {amplification} attempts per call"
        );
        println!(
            "{name}: {amplification:.4} attempts per call, worst {:?}",
            calls.worst
        );
    }
}

/// From 1 to 5 ms, to which the server adds 1 ms.
fn steady(rng: &mut Rng) -> Duration {
    MS + (4 * MS).mul_f64(rng.f64())
}

#[tokio::test(start_paused = true)]
async fn a_hung_instance_is_out_within_60_ms_and_its_calls_are_answered_within_50_ms() {
    for (servers, balancer) in [
        (3, Policy::RoundRobin),
        (5, Policy::RoundRobin),
        (3, Policy::Random),
        (3, Policy::LeastRequest),
    ] {
        let world = World::start(servers, balancer, true, steady).await;
        world.load(5 * SECOND).await;
        world.calls.lock().unwrap().worst = Duration::ZERO;
        let hung = &world.memory.servers()[0];
        let before = hung.calls();
        let received = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&received);
        hung.behave(move |_| {
            noted.lock().unwrap().get_or_insert_with(Instant::now);
            std::future::pending()
        });
        let channel = world.channel.clone();
        let out = tokio::spawn(async move {
            let ejected = || channel.endpoints().iter().any(|it| it.ejected);
            let mut changes = channel.changes();
            while !ejected() {
                changes.changed().await.unwrap();
            }
            Instant::now()
        });
        world.load(2 * SECOND).await;
        let out = out.await.unwrap();
        // The first call that it does not answer is overdue after three times the slowest answer.
        let overdue = received.lock().unwrap().unwrap() + 3 * 7 * MS;
        let noticed = out.saturating_duration_since(overdue);
        // Other balancers have no bound of time, as they give it no fixed share of the calls.
        let in_turn = balancer == Policy::RoundRobin;
        assert!(
            !in_turn || noticed <= 60 * MS,
            "{balancer} of {servers}: {noticed:?}"
        );
        let received = hung.calls() - before;
        assert!(
            received <= 10,
            "{balancer} of {servers}: {received} calls to it"
        );
        let calls = world.calls.lock().unwrap();
        assert!(calls.failed.is_empty(), "{:?}", calls.failed);
        assert!(
            calls.worst < 50 * MS,
            "{balancer} of {servers}: {:?}",
            calls.worst
        );
        println!("{balancer} of {servers}: out after {noticed:?}, {received} calls to it");
    }
}

#[tokio::test(start_paused = true)]
async fn two_hung_instances_of_five_are_out_and_no_call_fails() {
    let world = World::start(5, Policy::RoundRobin, true, steady).await;
    world.load(5 * SECOND).await;
    for server in &world.memory.servers()[..2] {
        server.behave(|_| std::future::pending());
    }
    world.load(SECOND).await;
    let endpoints = world.channel.endpoints();
    let ejected: Vec<_> = endpoints.iter().map(|it| it.ejected).collect();
    assert_eq!(ejected, [true, true, false, false, false]);
    let calls = world.calls.lock().unwrap();
    assert!(calls.failed.is_empty(), "{:?}", calls.failed);
    assert!(calls.worst < 80 * MS, "{:?}", calls.worst);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_hangs_under_few_calls_is_out_after_three() {
    let world = World::start(2, Policy::RoundRobin, true, steady).await;
    world.load(3 * SECOND).await;
    world.memory.servers()[0].behave(|_| std::future::pending());
    let before = world.memory.servers()[0].calls();
    let mut client = TrimClient::new(world.channel.clone());
    for _ in 0..20 {
        client.trim_space(TrimRequest::default()).await.unwrap();
        sleep(100 * MS).await;
    }
    let received = world.memory.servers()[0].calls() - before;
    assert_eq!(received, 3, "calls received by the hung instance");
}

#[tokio::test(start_paused = true)]
async fn jitter_with_a_heavy_tail_ejects_nobody() {
    for balancer in BALANCERS {
        // A Pareto tail with the exponent 1.5, up to two seconds.
        let latency = |rng: &mut Rng| {
            let tail = (1.0 - rng.f64()).powf(-1.0 / 1.5);
            (2 * MS).mul_f64(tail.min(1_000.0))
        };
        let world = World::start(3, balancer, true, latency).await;
        world.survives(&format!("heavy tail, {balancer}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_all_instances_at_once_ejects_nobody() {
    const EVERY: Duration = Duration::from_secs(10);
    for balancer in BALANCERS {
        let world = World::start(3, balancer, true, steady).await;
        let begun = Instant::now();
        let rng = Arc::new(Mutex::new(Rng::with_seed(3)));
        for server in world.memory.servers() {
            let rng = Arc::clone(&rng);
            server.behave(move |_| {
                let end = Instant::now() + steady(&mut rng.lock().unwrap());
                async move {
                    // The end of the latest pause that has begun by then.
                    let pauses = (end - begun).as_secs() / EVERY.as_secs();
                    let pause = begun + EVERY * u32::try_from(pauses).unwrap();
                    let resumed = (pauses > 0).then_some(pause + 100 * MS);
                    sleep_until(resumed.map_or(end, |at| at.max(end))).await;
                    Ok(())
                }
            });
        }
        world.survives(&format!("pauses, {balancer}")).await;
        assert!(
            world.calls.lock().unwrap().worst >= 95 * MS,
            "there was no pause"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_becomes_ten_times_slower_everywhere_ejects_nobody() {
    let balancers = BALANCERS.map(|balancer| (balancer, true));
    for (balancer, idempotent) in balancers.into_iter().chain([(Policy::Random, false)]) {
        let begun = Instant::now();
        let latency = move |rng: &mut Rng| {
            let slow = begun.elapsed().as_secs() / 20 % 2 == 1;
            steady(rng) * if slow { 10 } else { 1 }
        };
        let world = World::start(3, balancer, idempotent, latency).await;
        let name = format!("slower, {balancer}, idempotent: {idempotent}");
        world.survives(&name).await;
    }
}
