//! Removal protection: what leaves a registry all at once stays as a last resort while it works.
//!
//! The registry is a source that the test feeds, the servers are in memory, and the clock is paused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{future::pending, sync::Arc, time::Duration};

use discovery::{
    BoxFuture, Channel, ChannelBuilder, Instance, InstanceHealth,
    registry::{
        Instancer, Listing, Query, Registration, RegistrationClient, Registry, RegistryError,
        Source, Update, WatchDriver,
    },
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::{
    memory::{Health, Memory, MemoryServer},
    recorder::Recorder,
};
use tokio::{
    sync::{Mutex, mpsc},
    time::{Instant, sleep},
};
use tonic::Status;

/// A registry of the updates that the test sends.
#[derive(Clone)]
struct Fed {
    updates: mpsc::UnboundedSender<Update>,
    received: Arc<Mutex<mpsc::UnboundedReceiver<Update>>>,
}

impl Fed {
    fn new() -> Self {
        let (updates, received) = mpsc::unbounded_channel();
        Self {
            updates,
            received: Arc::new(Mutex::new(received)),
        }
    }

    fn list(&self, instances: impl IntoIterator<Item = Instance>) {
        let listing: Listing = instances.into_iter().collect();
        self.updates.send(listing.into()).unwrap();
    }

    fn confirm(&self) {
        self.updates.send(Update::Unchanged).unwrap();
    }
}

impl Source for Fed {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
        Box::pin(async {
            match self.received.lock().await.recv().await {
                Some(update) => Ok(update),
                None => pending().await,
            }
        })
    }
}

impl Registry for Fed {
    fn name(&self) -> &'static str {
        "fed"
    }

    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        let driver = WatchDriver::start(self.name(), &query.service, self.clone())?;
        Ok(Arc::new(driver))
    }

    fn registration(&self, _: Registration) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(RegistryError::Unsupported {
            registry: self.name().to_owned(),
            action: "register".to_owned(),
        })
    }
}

/// Servers, their registry, and a channel to them.
struct Fixture {
    memory: Memory,
    registry: Fed,
    channel: Channel,
    client: TrimClient<Channel>,
}

impl Fixture {
    /// A channel that is connected to all servers. Names of services differ, because the metrics of a
    /// service are those of the process.
    async fn start(service: &str, servers: u16) -> Self {
        Self::start_with(service, servers, |builder| builder).await
    }

    async fn start_with(
        service: &str,
        servers: u16,
        with: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
    ) -> Self {
        let memory = Memory::with_servers(servers);
        let registry = Fed::new();
        let builder = Channel::from_registry(Arc::new(registry.clone()), service);
        let channel = with(builder.factory(memory.clone())).build().unwrap();
        registry.list(memory.servers().iter().map(instance));
        let connected = channel.wait_for(|status| status.ready == usize::from(servers));
        connected.await.unwrap();
        Self {
            client: TrimClient::new(channel.clone()),
            memory,
            registry,
            channel,
        }
    }

    /// Lists all servers with this health.
    fn all(&self, health: InstanceHealth) {
        let instances = self.memory.servers().iter().map(instance);
        self.registry.list(instances.map(|i| i.with_health(health)));
    }

    async fn call(&mut self) -> Result<(), Status> {
        let request = TrimRequest { s: "x".into() };
        self.client.trim_space(request).await.map(drop)
    }

    /// Calls every 100 ms. No call may fail.
    async fn calls_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.call().await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The time until the channel has this many instances.
    async fn until_instances(&self, count: usize) -> Duration {
        let begun = Instant::now();
        let reached = self.channel.wait_for(|status| status.instances == count);
        reached.await.unwrap();
        begun.elapsed()
    }

    fn connections_made(&self) -> Vec<usize> {
        let servers = self.memory.servers().iter();
        servers.map(MemoryServer::connections_made).collect()
    }
}

fn instance(server: &MemoryServer) -> Instance {
    server.instance().with_health(InstanceHealth::Passing)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn instances_whose_node_is_lost_answer_for_as_long_as_they_serve() {
    let mut fixture = Fixture::start("lost", 3).await;
    // The node is lost, then it leaves the catalog, then it is back.
    fixture.all(InstanceHealth::Lost);
    fixture.calls_for(MINUTE).await;
    let status = fixture.channel.status();
    assert_eq!(
        (status.instances, status.listed, status.unusable),
        (3, 0, 3)
    );
    let lost = |health| {
        let endpoints = fixture.channel.endpoints();
        let all = endpoints.iter();
        all.filter(|e| e.protected && e.instance.health == health)
            .count()
    };
    assert_eq!(lost(InstanceHealth::Lost), 3);
    fixture.registry.list([]);
    fixture.calls_for(10 * MINUTE).await;
    let status = fixture.channel.status();
    assert_eq!(
        (status.instances, status.listed, status.unusable),
        (3, 0, 0)
    );
    fixture.all(InstanceHealth::Passing);
    fixture.calls_for(MINUTE).await;
    assert_eq!(fixture.channel.status().listed, 3);
    assert_eq!(fixture.connections_made(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn checks_that_all_fail_at_once_do_not_take_the_service_down() {
    let mut fixture = Fixture::start("failing", 3).await;
    fixture.all(InstanceHealth::Critical);
    fixture.calls_for(MINUTE).await;
    fixture.all(InstanceHealth::Passing);
    fixture.calls_for(MINUTE).await;
    assert_eq!(fixture.connections_made(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_leaves_alone_goes_at_once() {
    for health in [
        None,
        Some(InstanceHealth::Lost),
        Some(InstanceHealth::Critical),
        Some(InstanceHealth::Warning),
    ] {
        let mut fixture = Fixture::start("alone", 3).await;
        let mut list: Vec<_> = fixture.memory.servers().iter().map(instance).collect();
        let first = list.remove(0);
        let left = health.map(|health| first.with_health(health));
        fixture.registry.list(list.into_iter().chain(left));
        let took = fixture.until_instances(2).await;
        assert!(took < Duration::from_millis(10), "{health:?}: {took:?}");
        let before = fixture.memory.servers()[0].calls();
        fixture.calls_for(Duration::from_secs(5)).await;
        assert_eq!(fixture.memory.servers()[0].calls(), before);
        let unusable = usize::from(health.is_some());
        assert_eq!(fixture.channel.status().unusable, unusable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_resort_that_reports_not_serving_goes_at_once_and_the_others_stay() {
    let mut fixture = Fixture::start("not-serving", 3).await;
    fixture.registry.list([]);
    fixture.calls_for(MINUTE).await;
    fixture.memory.servers()[0].report(Health::NotServing);
    let took = fixture.until_instances(2).await;
    assert!(took <= Duration::from_millis(1_010), "{took:?}");
    fixture.calls_for(MINUTE).await;
    assert_eq!(fixture.channel.status().instances, 2);
}

#[tokio::test(start_paused = true)]
async fn a_last_resort_that_no_longer_answers_goes_after_two_probes() {
    let fixture = Fixture::start("silent", 3).await;
    fixture.registry.list([]);
    sleep(MINUTE).await;
    fixture.memory.servers()[0].fall_silent();
    let took = fixture.until_instances(2).await;
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took <= Duration::from_secs(4), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_without_a_health_service_stays_for_half_a_minute() {
    let mut fixture = Fixture::start("no-health", 3).await;
    for server in fixture.memory.servers() {
        server.report(Health::NoService);
    }
    let begun = Instant::now();
    fixture.registry.list([]);
    fixture.calls_for(Duration::from_secs(29)).await;
    fixture.until_instances(0).await;
    assert!(begun.elapsed() <= Duration::from_secs(32));
    assert!(fixture.call().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lost_instance_that_is_deregistered_alone_goes_at_once() {
    let fixture = Fixture::start("later", 3).await;
    fixture.all(InstanceHealth::Lost);
    sleep(MINUTE).await;
    let lost = |server| instance(server).with_health(InstanceHealth::Lost);
    fixture
        .registry
        .list(fixture.memory.servers()[1..].iter().map(lost));
    let took = fixture.until_instances(2).await;
    assert!(took < Duration::from_millis(10), "{took:?}");
    sleep(MINUTE).await;
    assert_eq!(fixture.channel.status().instances, 2);
}

#[tokio::test(start_paused = true)]
async fn all_instances_are_picked_where_failing_ones_are_wanted() {
    let mut fixture = Fixture::start_with("any", 2, |builder| builder.passing_only(false)).await;
    let [first, second] = fixture.memory.servers() else {
        unreachable!("two servers")
    };
    let failing = instance(first).with_health(InstanceHealth::Critical);
    fixture.registry.list([failing, instance(second)]);
    sleep(MINUTE).await;
    let before = fixture.memory.servers()[0].calls();
    for _ in 0..10 {
        fixture.call().await.unwrap();
    }
    assert_eq!(fixture.memory.servers()[0].calls(), before + 5);
    assert_eq!(fixture.channel.status().unusable, 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_says_that_registered_instances_fail_their_checks() {
    let memory = Memory::with_servers(2);
    let registry = Fed::new();
    let channel = Channel::from_registry(Arc::new(registry.clone()), "trim_service");
    let channel = channel.factory(memory.clone()).build().unwrap();
    let failing = |server| instance(server).with_health(InstanceHealth::Critical);
    registry.list(memory.servers().iter().map(failing));
    let known = channel.wait_for(|status| status.discovered);
    known.await.unwrap();
    let mut client = TrimClient::new(channel);
    let status = client
        .trim_space(TrimRequest { s: "x".into() })
        .await
        .unwrap_err();
    assert!(
        status.message().contains("none of the 2 instances"),
        "{status}"
    );
    assert_eq!(memory.servers()[0].connections_made(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_registry_keeps_the_time_of_its_confirmation_recent() {
    let fixture = Fixture::start("quiet", 1).await;
    for _ in 0..10 {
        sleep(MINUTE / 2).await;
        fixture.registry.confirm();
        sleep(Duration::from_millis(1)).await;
        let confirmed = fixture.channel.status().confirmed.unwrap();
        assert!(confirmed.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn last_resorts_are_counted_by_a_metric() {
    let recorder = Recorder::default();
    let _local = metrics::set_default_local_recorder(&recorder);
    let fixture = Fixture::start("counted", 3).await;
    let count = |state: &str| {
        recorder.gauge(&format!(
            "discovery_endpoints{{service=counted,state={state}}}"
        ))
    };
    assert_eq!((count("ready"), count("protected")), (Some(3.0), Some(0.0)));
    fixture.registry.list([]);
    let kept = fixture.channel.wait_for(|status| status.listed == 0);
    kept.await.unwrap();
    assert_eq!((count("ready"), count("protected")), (Some(0.0), Some(3.0)));
}
