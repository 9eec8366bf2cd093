//! Large sets of instances that cannot be connected to, on a paused clock: what they cost at rest, and
//! how soon one that returns is found.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::{
    collections::{HashMap, HashSet},
    future::{pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{
    Channel, ChannelBuilder, ConnectivityState, EjectionPolicy, Instance, ServedBy,
    balance::{Balancer, Picker, Policy},
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    endpoint::Endpoint,
    registry::StaticRegistry,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use proto::{TrimRequest, trim_client::TrimClient};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DEAD: u16 = 5_000;
const ALL: u16 = DEAD + 5;

/// Instances in memory, by their port. Only those that are up can be connected to.
#[derive(Clone)]
struct Fleet {
    up: Arc<watch::Sender<HashSet<u16>>>,
    /// The port of each attempt that failed.
    failed: Arc<Mutex<Vec<u16>>>,
}

impl Fleet {
    fn new(up: impl IntoIterator<Item = u16>) -> Self {
        Self {
            up: Arc::new(watch::channel(up.into_iter().collect()).0),
            failed: Arc::default(),
        }
    }

    /// From now on only these are up; the connections of the others break.
    fn set_up(&self, ports: impl IntoIterator<Item = u16>) {
        self.up.send_replace(ports.into_iter().collect());
    }

    /// The failed attempts within this time from now.
    async fn failures_within(&self, time: Duration) -> Vec<u16> {
        self.failed.lock().unwrap().clear();
        sleep(time).await;
        self.failed.lock().unwrap().clone()
    }
}

impl Factory for Fleet {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        let port = instance.port;
        if !self.up.borrow().contains(&port) {
            self.failed.lock().unwrap().push(port);
            return ready(Err(ConnectError::Connect("refused".into()))).boxed();
        }
        let mut up = self.up.subscribe();
        let driver = async move {
            // The sender lives as long as the factory.
            let _down = up.wait_for(|up| !up.contains(&port)).await;
            Err("reset".into())
        };
        ready(Ok(Connection::new(Answering, driver))).boxed()
    }
}

struct Answering;

impl Transport for Answering {
    fn send(
        &self,
        _: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        ready(Ok(testkit::grpc_message(&[0; 5]))).boxed()
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// Round robin that counts the sets that are published.
struct Counting {
    policy: Arc<dyn Balancer>,
    published: Arc<AtomicUsize>,
}

impl Balancer for Counting {
    fn picker(&self, candidates: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        self.published.fetch_add(1, Ordering::Relaxed);
        self.policy.picker(candidates)
    }
}

fn builder(fleet: &Fleet, count: u16) -> ChannelBuilder {
    let instances = (1..=count).map(|port| Instance::new("10.0.0.1", port).unwrap());
    Channel::from_registry(Arc::new(StaticRegistry::new(instances)), "fleet").factory(fleet.clone())
}

/// The time until the instance with this port is connected.
async fn found(channel: &Channel, port: u16) -> Duration {
    let started = Instant::now();
    let mut changes = channel.changes();
    let is_ready = || {
        let endpoints = channel.endpoints();
        let found = endpoints.iter().find(|e| e.instance.port == port).unwrap();
        found.connectivity == ConnectivityState::Ready
    };
    while !is_ready() {
        timeout(MINUTE, changes.changed()).await.unwrap().unwrap();
    }
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn unreachable_instances_cost_little_while_others_are_ready() {
    let fleet = Fleet::new(DEAD + 1..=ALL);
    let published = Arc::<AtomicUsize>::default();
    let channel = builder(&fleet, ALL)
        .ejection(EjectionPolicy::default().with_enabled(false))
        .custom_balancer(Arc::new(Counting {
            policy: Policy::RoundRobin.balancer(),
            published: Arc::clone(&published),
        }))
        .build()
        .unwrap();
    channel.wait_for(|status| status.ready == 5).await.unwrap();
    // While the attempts still become rarer they are limited over the whole set.
    sleep(10 * SECOND).await;
    let failures = fleet.failures_within(MINUTE).await;
    assert!(failures.len() <= 6_100, "{} attempts", failures.len());
    // At rest each instance still has its turn.
    sleep(15 * MINUTE).await;
    let published_before = published.load(Ordering::Relaxed);
    let failures = fleet.failures_within(3 * MINUTE).await;
    assert!(failures.len() <= 18_100, "{} attempts", failures.len());
    let tried: HashSet<u16> = failures.into_iter().collect();
    assert_eq!(tried.len(), usize::from(DEAD));
    // Failures in a row change nothing that calls could see.
    let published = published.load(Ordering::Relaxed) - published_before;
    assert!(published <= 5, "{published} sets published");
    assert_eq!(channel.status().ready, 5);
}

#[tokio::test(start_paused = true)]
async fn of_a_set_that_is_down_the_one_that_returns_is_found_within_a_second() {
    let fleet = Fleet::new(DEAD + 1..=ALL);
    let channel = builder(&fleet, ALL).build().unwrap();
    channel.wait_for(|status| status.ready == 5).await.unwrap();
    sleep(10 * MINUTE).await;
    // One that never had a connection, at the moment at which the last ready ones are lost.
    fleet.set_up([7]);
    let taken = found(&channel, 7).await;
    assert!(taken <= SECOND, "{taken:?}");
    // The same after an outage of all.
    fleet.set_up([]);
    sleep(10 * SECOND).await;
    fleet.set_up([DEAD + 2]);
    let taken = found(&channel, DEAD + 2).await;
    assert!(taken <= SECOND, "{taken:?}");
    // The others that return soon after it are found as soon.
    fleet.set_up(DEAD + 1..=ALL);
    for port in DEAD + 1..=ALL {
        let taken = found(&channel, port).await;
        assert!(taken <= SECOND, "{taken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_down_costs_little_at_rest() {
    let fleet = Fleet::new([]);
    let published = Arc::<AtomicUsize>::default();
    let _channel = builder(&fleet, DEAD)
        .ejection(EjectionPolicy::default().with_enabled(false))
        .custom_balancer(Arc::new(Counting {
            policy: Policy::RoundRobin.balancer(),
            published: Arc::clone(&published),
        }))
        .build()
        .unwrap();
    sleep(10 * SECOND).await;
    let published_before = published.load(Ordering::Relaxed);
    let failures = fleet.failures_within(MINUTE).await;
    // 250 a second, whatever the size of the set.
    assert!(failures.len() <= 15_300, "{} attempts", failures.len());
    // Each still has its turn.
    let tried: HashSet<u16> = failures.into_iter().collect();
    assert_eq!(tried.len(), usize::from(DEAD));
    let published = published.load(Ordering::Relaxed) - published_before;
    assert!(published <= 5, "{published} sets published");
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_set_that_is_down_finds_the_one_that_returns_within_a_second() {
    let fleet = Fleet::new([]);
    let channel = builder(&fleet, DEAD).build().unwrap();
    let mut client = TrimClient::new(channel.clone());
    for port in [7, 2_500, 4_999] {
        sleep(MINUTE).await;
        fleet.set_up([port]);
        let started = Instant::now();
        while client.trim_space(TrimRequest::default()).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(started.elapsed() <= SECOND, "{:?}", started.elapsed());
        // Calls that fail all the while.
        fleet.set_up([]);
        channel.wait_for(|status| status.ready == 0).await.unwrap();
        for _ in 0..500 {
            client.trim_space(TrimRequest::default()).await.unwrap_err();
            sleep(Duration::from_millis(10)).await;
        }
        fleet.set_up([port + 1]);
        let started = Instant::now();
        while client.trim_space(TrimRequest::default()).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(started.elapsed() <= 2 * SECOND, "{:?}", started.elapsed());
        fleet.set_up([]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_calls_one_that_answered_before_is_found_within_a_second() {
    let fleet = Fleet::new(1..=20);
    let channel = builder(&fleet, DEAD).build().unwrap();
    channel.wait_for(|status| status.ready == 20).await.unwrap();
    fleet.set_up([]);
    sleep(MINUTE).await;
    for port in [3, 17] {
        fleet.set_up([port]);
        let taken = found(&channel, port).await;
        assert!(taken <= SECOND, "{taken:?}");
        fleet.set_up([]);
        sleep(MINUTE).await;
    }
    // One that never answered has its turn later, within the bound that is documented.
    fleet.set_up([4_000]);
    let taken = found(&channel, 4_000).await;
    assert!(taken <= 45 * SECOND, "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_set_that_returns_as_a_whole_is_connected_at_once() {
    let fleet = Fleet::new([]);
    let channel = builder(&fleet, DEAD).build().unwrap();
    sleep(2 * MINUTE).await;
    fleet.set_up(1..=DEAD);
    let started = Instant::now();
    let all = channel.wait_for(|status| status.ready == usize::from(DEAD));
    timeout(MINUTE, all).await.unwrap().unwrap();
    assert!(started.elapsed() <= 2 * SECOND, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_new_in_the_set_does_not_wait_for_those_that_are_down() {
    const COUNT: u16 = 1_000;
    let fleet = Fleet::new([]);
    let instance = |port| Instance::new("10.0.0.1", port).unwrap();
    let registry = StaticRegistry::new((1..=COUNT).map(instance));
    let channel = Channel::from_registry(Arc::new(registry.clone()), "fleet")
        .factory(fleet.clone())
        .build()
        .unwrap();
    sleep(MINUTE).await;
    // It registers two seconds before it listens.
    let new = COUNT + 1;
    registry.set((1..=new).map(instance));
    sleep(2 * SECOND).await;
    fleet.set_up([new]);
    let taken = found(&channel, new).await;
    assert!(taken <= SECOND, "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_restarts_is_found_soon_beside_many_that_never_answered() {
    let fleet = Fleet::new(DEAD + 1..=ALL);
    let channel = builder(&fleet, ALL).build().unwrap();
    channel.wait_for(|status| status.ready == 5).await.unwrap();
    sleep(10 * MINUTE).await;
    for (outage, limit) in [(4 * SECOND, SECOND), (40 * SECOND, 7 * SECOND)] {
        fleet.set_up(DEAD + 2..=ALL);
        channel.wait_for(|status| status.ready == 4).await.unwrap();
        sleep(outage).await;
        fleet.set_up(DEAD + 1..=ALL);
        let taken = found(&channel, DEAD + 1).await;
        assert!(taken <= limit, "{taken:?} after {outage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn backoff_survives_from_one_attempt_to_the_next_without_eager_connections() {
    let fleet = Fleet::new([2]);
    let channel = builder(&fleet, 2).eager(false).build().unwrap();
    let mut client = TrimClient::new(channel);
    let started = Instant::now();
    while started.elapsed() < 5 * MINUTE {
        client.trim_space(TrimRequest::default()).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    let failures = fleet.failed.lock().unwrap().len();
    assert!((8..=20).contains(&failures), "{failures} attempts");
}

#[tokio::test(start_paused = true)]
async fn with_connections_on_demand_calls_are_spread_over_all_instances() {
    const COUNT: u16 = 50;
    let fleet = Fleet::new(1..=COUNT);
    let channel = builder(&fleet, COUNT).eager(false).build().unwrap();
    let mut client = TrimClient::new(channel.clone());
    for round in 1..=4 {
        let mut counts = HashMap::new();
        for _ in 0..COUNT {
            let response = client.trim_space(TrimRequest::default()).await.unwrap();
            let served = response.extensions().get::<ServedBy>().unwrap();
            *counts.entry(served.0.port).or_insert(0) += 1;
        }
        // Exactly, from the first call on.
        assert_eq!(counts.len(), usize::from(COUNT), "in round {round}");
    }
    assert_eq!(channel.status().ready, usize::from(COUNT));
}

#[tokio::test(start_paused = true)]
async fn with_connections_on_demand_there_is_something_to_call_before_the_first_call() {
    let fleet = Fleet::new([]);
    let channel = builder(&fleet, 3).eager(false).build().unwrap();
    timeout(SECOND, channel.ready()).await.unwrap();
    let status = channel.status();
    assert_eq!((status.available, status.ready), (3, 0));
    assert!(fleet.failed.lock().unwrap().is_empty());
    // Calls have found that all are down.
    let mut client = TrimClient::new(channel.clone());
    client.trim_space(TrimRequest::default()).await.unwrap_err();
    for _ in 0..3 {
        client.trim_space(TrimRequest::default()).await.unwrap_err();
    }
    let none = channel.wait_for(|status| status.available == 0);
    timeout(SECOND, none).await.unwrap().unwrap();
    // One is back: this needs no call.
    fleet.set_up([2]);
    timeout(SECOND, channel.ready()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subset_whose_stand_ins_are_down_goes_on_until_it_has_live_ones() {
    // Five of 500 are up, and a subset of five needs all of them.
    let fleet = Fleet::new((100..=500).step_by(100));
    let channel = builder(&fleet, 500)
        .subset(5)
        .subset_id("a")
        .build()
        .unwrap();
    let all = channel.wait_for(|status| status.ready == 5);
    timeout(MINUTE, all).await.unwrap().unwrap();
    TrimClient::new(channel.clone())
        .trim_space(TrimRequest::default())
        .await
        .unwrap();
    // All return: the stand-ins are dropped, and none of them is kept as a last resort.
    fleet.set_up(1..=500);
    let members = channel.wait_for(|status| (status.ready, status.instances) == (5, 5));
    timeout(5 * MINUTE, members).await.unwrap().unwrap();
    assert_eq!(channel.status().listed, 5);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_made_again_before_those_that_hang() {
    /// Connects to the first instance at once, and to the others never.
    #[derive(Clone, Default)]
    struct Hanging(Arc<Mutex<Vec<Instant>>>);

    impl Factory for Hanging {
        fn connect<'a>(
            &'a self,
            instance: &'a Instance,
        ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
            if instance.port > 1 {
                return pending().boxed();
            }
            self.0.lock().unwrap().push(Instant::now());
            let driver = async {
                sleep(5 * MINUTE).await;
                Ok(())
            };
            ready(Ok(Connection::new(Answering, driver))).boxed()
        }
    }

    let instances = (1..=1_000).map(|port| Instance::new("10.0.0.1", port).unwrap());
    let registry = Arc::new(StaticRegistry::new(instances));
    let factory = Hanging::default();
    let _channel = Channel::from_registry(registry, "fleet")
        .factory(factory.clone())
        .build()
        .unwrap();
    sleep(6 * MINUTE).await;
    let connected = factory.0.lock().unwrap().clone();
    let [first, again] = connected[..] else {
        panic!("{} connections", connected.len());
    };
    let taken = again - (first + 5 * MINUTE);
    assert!(taken <= SECOND, "{taken:?}");
}
