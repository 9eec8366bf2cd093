//! What happens to an instance that is registered and sick: it stops getting calls, and gets them
//! back when it is well.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    future::{pending, ready as ready_future},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use discovery::{
    Channel, ChannelBuilder, EjectionPolicy, Instance, RemovalProtection,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    registry::{
        InstanceSet, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
        StaticRegistry,
    },
};
use futures_util::future::BoxFuture;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use proto::{TrimRequest, trim_client::TrimClient};
use support::TrimServer;
use tokio::{sync::watch, time::Instant};
use tonic::Status;

const TRIM: &str = "/pb.Trim/TrimSpace";

/// A static list as a registry that may lose instances by its own failure.
struct Fallible(StaticRegistry);

impl Registry for Fallible {
    fn name(&self) -> &'static str {
        "fallible"
    }

    fn instancer(&self, _query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        Ok(Arc::new(Self(self.0.clone())))
    }

    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        self.0.registration(registration)
    }
}

impl Instancer for Fallible {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.0.watch()
    }
}

fn channel(fixed: &StaticRegistry) -> ChannelBuilder {
    let mut ejection = EjectionPolicy::default();
    ejection.base_time = Duration::from_secs(1);
    ejection.slow_start = Duration::from_millis(200);
    Channel::from_registry(Arc::new(Fallible(fixed.clone())), "trim_service")
        .idempotent([TRIM])
        .ejection(ejection)
        .retry_timeout(Duration::from_secs(20))
        .attempt_timeout(Duration::from_millis(100))
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
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never came true");
        call(client).await.unwrap();
    }
}

#[tokio::test]
async fn an_instance_that_answers_only_errors_is_left_alone_until_it_is_well() {
    let servers = TrimServer::start_many(3).await;
    let (_, mut client) = ready(channel(&support::fixed(&servers)), 3).await;
    let sick = &servers[0];
    calls_until(&mut client, || sick.calls() > 3).await;
    sick.behave(|_| async { Err(Status::unavailable("sick")) });
    let before = sick.calls();
    for _ in 0..120 {
        call(&mut client).await.unwrap();
    }
    // Five in a row eject; what comes on top are trial calls, one per return.
    let met = sick.calls() - before;
    assert!(
        (5..=12).contains(&met),
        "{met} calls of 120 met the sick instance"
    );
    sick.recover();
    let before = sick.calls();
    calls_until(&mut client, || sick.calls() > before + 20).await;
}

#[tokio::test]
async fn an_instance_that_hangs_is_left_alone_until_it_answers() {
    let servers = TrimServer::start_many(2).await;
    let (_, mut client) = ready(channel(&support::fixed(&servers)), 2).await;
    let sick = &servers[1];
    calls_until(&mut client, || sick.calls() > 3).await;
    sick.behave(|_| pending());
    let before = sick.calls();
    for _ in 0..60 {
        call(&mut client).await.unwrap();
    }
    let met = sick.calls() - before;
    assert!(
        (3..=8).contains(&met),
        "{met} calls of 60 met the sick instance"
    );
    sick.recover();
    let before = sick.calls();
    calls_until(&mut client, || sick.calls() > before + 20).await;
}

/// Connections in memory. The instance of port 1 answers; the others accept calls and nothing more.
struct Silence(Arc<AtomicUsize>);

struct Mute;

struct Answering;

impl Factory for Silence {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        let connection = if instance.port == 1 {
            Connection::new(Answering, pending())
        } else {
            self.0.fetch_add(1, Ordering::SeqCst);
            Connection::new(Mute, pending())
        };
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(connection)
        })
    }
}

type Sent = BoxFuture<'static, Result<http::Response<TransportBody>, SendError>>;

impl Transport for Mute {
    fn send(&self, _request: http::Request<RequestBody>) -> Sent {
        Box::pin(pending())
    }

    fn is_closed(&self) -> bool {
        false
    }
}

impl Transport for Answering {
    fn send(&self, _request: http::Request<RequestBody>) -> Sent {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        // An empty message.
        let frames = [
            Frame::data(Bytes::from_static(&[0; 5])),
            Frame::trailers(trailers),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok)));
        Box::pin(ready_future(Ok(http::Response::new(body.boxed_unsync()))))
    }

    fn is_closed(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_an_answer_is_made_anew_and_the_new_one_gets_its_time() {
    let connections = Arc::new(AtomicUsize::new(0));
    let instances = [1, 2].map(|port| Instance::new("127.0.0.1", port).unwrap());
    let builder =
        channel(&StaticRegistry::new(instances)).factory(Silence(Arc::clone(&connections)));
    let channel = builder.build().unwrap();
    let mut client = TrimClient::new(channel);
    // Three unanswered calls eject; no call after them takes any time.
    for _ in 0..20 {
        call(&mut client).await.unwrap();
        // Nothing here ever waits, and others have to run.
        tokio::task::yield_now().await;
    }
    let ejected = Instant::now();
    let mut made = Vec::new();
    while ejected.elapsed() < Duration::from_secs(12) {
        if connections.load(Ordering::SeqCst) > made.len() {
            made.push(ejected.elapsed().as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Out for one second, and a probe of one second goes unanswered: a new connection. It is probed
    // at once, another second, and then has the three seconds of the third ejection and their probe.
    assert_eq!(made, [0, 2, 7]);
}

#[tokio::test]
async fn when_all_are_sick_all_are_used() {
    let servers = TrimServer::start_many(2).await;
    let (_, mut client) = ready(channel(&support::fixed(&servers)), 2).await;
    for server in &servers {
        server.behave(|_| async { Err(Status::unavailable("sick")) });
    }
    for _ in 0..50 {
        let status = call(&mut client).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
    servers.iter().for_each(TrimServer::recover);
    // The first call after the recovery succeeds: nothing has to be waited for.
    call(&mut client).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_suddenly_names_nobody_is_doubted_while_connections_work() {
    let servers = TrimServer::start_many(3).await;
    let fixed = support::fixed(&servers);
    let mut protection = RemovalProtection::default();
    protection.grace = Duration::from_secs(3);
    let (channel, mut client) = ready(channel(&fixed).protection(protection), 3).await;
    let begun = std::time::Instant::now();
    fixed.set([]);
    while begun.elapsed() < Duration::from_millis(500) {
        call(&mut client).await.unwrap();
    }
    support::eventually(|| channel.status().instances == 0).await;
    let status = call(&mut client).await.unwrap_err();
    assert!(status.message().contains("is registered"), "{status}");
    fixed.set(servers.iter().map(TrimServer::instance));
    support::eventually(|| channel.status().ready == 3).await;
    call(&mut client).await.unwrap();
}

#[tokio::test]
async fn instances_missing_from_a_much_smaller_answer_are_a_last_resort() {
    let mut servers = TrimServer::start_many(3).await;
    let fixed = support::fixed(&servers);
    let (channel, mut client) = ready(channel(&fixed), 3).await;
    fixed.set([servers[0].instance()]);
    // A change that both updates the set and is seen here: the first one's turn comes every time.
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

#[tokio::test]
async fn a_registry_that_is_not_doubted_is_believed_at_once() {
    let servers = TrimServer::start_many(2).await;
    let fixed = support::fixed(&servers);
    let mut believe = RemovalProtection::default();
    believe.grace = Duration::ZERO;
    let (channel, mut client) = ready(channel(&fixed).protection(believe), 2).await;
    fixed.set([]);
    support::eventually(|| channel.status().instances == 0).await;
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
