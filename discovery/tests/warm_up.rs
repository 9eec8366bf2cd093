//! Instances that join a running set, with servers in memory on a paused clock.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test that panics has failed; numbers of calls are small"
)]

mod support;

use std::{sync::Arc, time::Duration};

use discovery::{
    Channel, ChannelBuilder, EjectionPolicy, WarmUp, balance::Policy, registry::StaticRegistry,
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::memory::{Memory, MemoryServer};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

const WINDOW: Duration = Duration::from_secs(10);
const CALLERS: usize = 8;

/// A channel to the first three of four servers, and the registry that lists them.
async fn channel(memory: &Memory, change: impl FnOnce(ChannelBuilder) -> ChannelBuilder) -> Bench {
    let registry = StaticRegistry::new(instances(memory, 3));
    let builder = Channel::from_registry(Arc::new(registry.clone()), "trim_service")
        .factory(memory.clone())
        .ejection(EjectionPolicy::default().with_enabled(false));
    let channel = change(builder).build().unwrap();
    channel.wait_for(|status| status.ready == 3).await.unwrap();
    Bench {
        memory: memory.clone(),
        registry,
        channel,
    }
}

fn instances(memory: &Memory, count: usize) -> Vec<discovery::Instance> {
    let servers = memory.servers().iter().take(count);
    servers.map(MemoryServer::instance).collect()
}

struct Bench {
    memory: Memory,
    registry: StaticRegistry,
    channel: Channel,
}

impl Bench {
    /// Makes calls until `end`. Panics if one fails.
    fn load(&self, end: Instant) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let mut client = TrimClient::new(self.channel.clone());
            callers.spawn(async move {
                sleep(Duration::from_millis(caller as u64)).await;
                while Instant::now() < end {
                    client.trim_space(TrimRequest::default()).await.unwrap();
                    sleep(Duration::from_millis(15)).await;
                }
            });
        }
        callers
    }

    /// The share of calls that the fourth server receives until `end`.
    async fn share_until(&self, end: Instant) -> f64 {
        let calls = || {
            self.memory
                .servers()
                .iter()
                .map(MemoryServer::calls)
                .sum::<usize>()
        };
        let joined = &self.memory.servers()[3];
        let before = (joined.calls(), calls());
        sleep_until(end).await;
        (joined.calls() - before.0) as f64 / (calls() - before.1) as f64
    }

    fn warm_up_share(&self) -> Option<f64> {
        let snapshot = self.channel.snapshot();
        let joined = snapshot.endpoints.iter().find(|e| e.instance.port == 4);
        joined.unwrap().warm_up_share
    }
}

#[tokio::test(start_paused = true)]
async fn the_share_of_a_fourth_instance_grows_from_a_tenth_to_a_quarter_under_every_balancer() {
    for name in Policy::NAMES {
        let memory = Memory::with_servers(4);
        // A third of its share is a tenth of all calls.
        let warm_up = WarmUp::over(WINDOW).with_min_share(1.0 / 3.0);
        let bench = channel(&memory, |builder| {
            builder.balancer(name.parse().unwrap()).warm_up(warm_up)
        })
        .await;
        let begin = Instant::now() + Duration::from_secs(1);
        let at = |twentieths: u32| begin + WINDOW / 20 * twentieths;
        let mut callers = bench.load(at(30));
        sleep_until(begin).await;
        bench.registry.set(instances(&memory, 4));
        let ready = bench.channel.wait_for(|status| status.ready == 4).await;
        assert_eq!(ready.unwrap().instances, 4);
        assert_eq!(bench.warm_up_share(), Some(1.0 / 3.0), "{name}");

        let first = bench.share_until(at(6)).await;
        sleep_until(at(11)).await;
        let middle = bench.share_until(at(15)).await;
        sleep_until(at(21)).await;
        assert_eq!(bench.warm_up_share(), None, "{name}");
        let last = bench.share_until(at(30)).await;
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        // Where 65 % of the weight is left of one of four.
        let expected = 0.65 / 3.65;
        // The parts of a hash ring differ, and this one's does by up to a quarter.
        let ring = if *name == "consistent-hash" {
            0.25
        } else {
            0.0
        };
        // Four standard deviations of independent picks of 500 calls a second.
        for (seen, expected, tolerance) in [
            (first, 0.10, 0.03),
            (middle, expected, 0.05),
            (last, 0.25, 0.035),
        ] {
            assert!(
                (seen - expected).abs() < tolerance + ring * expected,
                "{name}: {first:.3}, {middle:.3}, {last:.3}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_a_fourth_instance_gets_its_full_share_at_once() {
    let memory = Memory::with_servers(4);
    let bench = channel(&memory, |builder| builder).await;
    bench.registry.set(instances(&memory, 4));
    bench
        .channel
        .wait_for(|status| status.ready == 4)
        .await
        .unwrap();
    assert_eq!(bench.warm_up_share(), None);
    let begin = Instant::now();
    let mut callers = bench.load(begin + WINDOW);
    let share = bench.share_until(begin + WINDOW).await;
    assert!((share - 0.25).abs() < 0.01, "{share}");
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_set_does_not_warm_up() {
    let memory = Memory::with_servers(3);
    let bench = channel(&memory, |builder| builder.warm_up(WarmUp::over(WINDOW))).await;
    let snapshot = bench.channel.snapshot();
    for endpoint in &snapshot.endpoints {
        assert_eq!((endpoint.share, endpoint.warm_up_share), (1.0, None));
    }
    assert_eq!(snapshot.policy.warm_up.window, WINDOW);
}

#[cfg(feature = "service-config")]
#[tokio::test(start_paused = true)]
async fn a_service_config_sets_the_warm_up_under_our_key_or_as_grpc_writes_it() {
    use discovery::config::ServiceConfig;

    let ours = r#"{"discovery": {"warmUp": {"window": "30s", "aggression": 2, "minShare": 0.2}}}"#;
    let grpcs = r#"{"loadBalancingConfig": [{"weighted_round_robin": {"slowStartConfig":
        {"slowStartWindow": "30s", "aggression": 2, "minWeightPercent": 20}}}]}"#;
    let expected = WarmUp::over(Duration::from_secs(30))
        .with_aggression(2.0)
        .with_min_share(0.2);
    for json in [ours, grpcs] {
        let config = ServiceConfig::parse(json).unwrap();
        assert_eq!(config.warnings(), []);
        let memory = Memory::with_servers(3);
        let bench = channel(&memory, |builder| builder.service_config(config)).await;
        assert_eq!(bench.channel.snapshot().policy.warm_up, expected);
        let printed = ServiceConfig::parse(&bench.channel.effective_config()).unwrap();
        bench
            .channel
            .set_service_config(ServiceConfig::default())
            .unwrap();
        assert_eq!(bench.channel.snapshot().policy.warm_up, WarmUp::default());
        bench.channel.set_service_config(printed).unwrap();
        assert_eq!(bench.channel.snapshot().policy.warm_up, expected);
    }
}
