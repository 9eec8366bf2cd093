//! Calls from many threads while the instance set changes: each call is sent and counted once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use discovery::{
    Channel, Instance,
    balance::{Balancer, Picker, Policy},
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    endpoint::Endpoint,
    registry::StaticRegistry,
};
use futures_util::future::{BoxFuture, FutureExt as _, pending, ready, select};
use http::{Request, Response};
use proto::{TrimRequest, trim_client::TrimClient};
use tokio::task::{JoinSet, yield_now};

const CALLERS: u64 = 32;
const CALLS: u64 = 300;
const INSTANCES: u16 = 40;

/// Connections without a server that answer every call and count them.
#[derive(Clone, Default)]
struct Answering {
    sent: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
}

impl Factory for Answering {
    fn connect<'a>(&'a self, _: &'a Instance) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        ready(Ok(Connection::new(self.clone(), pending()))).boxed()
    }
}

impl Transport for Answering {
    fn send(
        &self,
        _: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let answered = Arc::clone(&self.answered);
        async move {
            for _ in 0..number % 4 {
                yield_now().await;
            }
            answered.fetch_add(1, Ordering::Relaxed);
            Ok(testkit::grpc_message(&[0; 5]))
        }
        .boxed()
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// Round robin that records every endpoint it receives.
struct Recording {
    policy: Arc<dyn Balancer>,
    seen: Arc<Mutex<Vec<Arc<Endpoint>>>>,
}

impl Balancer for Recording {
    fn picker(&self, candidates: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        let mut seen = self.seen.lock().unwrap();
        for endpoint in candidates {
            if !seen.iter().any(|known| Arc::ptr_eq(known, endpoint)) {
                seen.push(Arc::clone(endpoint));
            }
        }
        self.policy.picker(candidates)
    }
}

struct Stress {
    channel: Channel,
    registry: StaticRegistry,
    transport: Answering,
    seen: Arc<Mutex<Vec<Arc<Endpoint>>>>,
}

impl Stress {
    fn new() -> Self {
        let transport = Answering::default();
        let seen = Arc::default();
        let registry = StaticRegistry::new((1..=INSTANCES).map(instance));
        let channel = Channel::from_registry(Arc::new(registry.clone()), "fleet")
            .factory(transport.clone())
            .custom_balancer(Arc::new(Recording {
                policy: Policy::RoundRobin.balancer(),
                seen: Arc::clone(&seen),
            }))
            .retry_timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        Self {
            channel,
            registry,
            transport,
            seen,
        }
    }

    /// Runs `caller` many times concurrently while the set keeps changing. Returns the number of
    /// changes.
    async fn run<F>(&self, caller: impl Fn(u64, TrimClient<Channel>) -> F) -> u64
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let done = Arc::new(AtomicBool::new(false));
        let churn = tokio::spawn(churn(self.registry.clone(), Arc::clone(&done)));
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            callers.spawn(caller(number, TrimClient::new(self.channel.clone())));
        }
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
        done.store(true, Ordering::Relaxed);
        churn.await.unwrap()
    }

    fn assert_nothing_in_flight(&self) {
        let seen = self.seen.lock().unwrap();
        assert!(
            seen.len() > usize::from(INSTANCES),
            "the set did not change"
        );
        for endpoint in &*seen {
            assert_eq!(endpoint.stats().in_flight(), 0, "{}", endpoint.instance());
        }
    }
}

fn instance(port: u16) -> Instance {
    Instance::new("127.0.0.1", port).unwrap()
}

/// Publishes another random half of the instances again and again until `done`.
async fn churn(registry: StaticRegistry, done: Arc<AtomicBool>) -> u64 {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut changes = 0;
    while !done.load(Ordering::Relaxed) {
        let ports = (1..=INSTANCES).filter(|_| rng.bool());
        // One instance always stays: without a connection calls would wait for one.
        registry.set(ports.chain([INSTANCES + 1]).map(instance));
        changes += 1;
        yield_now().await;
    }
    changes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_is_sent_once_and_answered_once_while_the_set_changes() {
    let stress = Stress::new();
    let changes = stress
        .run(|_, mut client| async move {
            for _ in 0..CALLS {
                client.trim_space(TrimRequest::default()).await.unwrap();
            }
        })
        .await;
    assert!(changes > 10, "the set changed {changes} times");
    assert_eq!(
        stress.transport.sent.load(Ordering::Relaxed),
        CALLERS * CALLS
    );
    assert_eq!(
        stress.transport.answered.load(Ordering::Relaxed),
        CALLERS * CALLS
    );
    stress.assert_nothing_in_flight();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_cancelled_at_any_moment_is_no_longer_counted() {
    let stress = Stress::new();
    stress
        .run(|number, client| async move {
            let mut rng = fastrand::Rng::with_seed(number);
            for _ in 0..CALLS {
                let mut client = client.clone();
                let call = async move { client.trim_space(TrimRequest::default()).await };
                let turns = rng.u32(..4);
                let cancellation = async move {
                    for _ in 0..turns {
                        yield_now().await;
                    }
                };
                // The future that does not complete first is dropped.
                select(std::pin::pin!(call), std::pin::pin!(cancellation)).await;
            }
        })
        .await;
    let sent = stress.transport.sent.load(Ordering::Relaxed);
    let answered = stress.transport.answered.load(Ordering::Relaxed);
    assert!(answered < sent, "no call was cancelled");
    stress.assert_nothing_in_flight();
}
