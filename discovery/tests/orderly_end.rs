//! Servers that end their connections in order, as proxies and servers with a maximum connection age
//! do: no call fails, and none is sent twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod raw_http2;
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{Channel, ChannelBuilder, Instance, registry::StaticRegistry};
use proto::{
    TrimRequest, TrimResponse,
    trim_client::TrimClient,
    trim_server::{Trim, TrimServer},
};
use raw_http2::{End, RawServer};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

fn builder(instances: impl IntoIterator<Item = Instance>) -> ChannelBuilder {
    Channel::from_registry(Arc::new(StaticRegistry::new(instances)), "trim_service")
        // A call that waits for a connection must not fail because the machine is busy.
        .retry_timeout(Duration::from_secs(20))
}

async fn ready(builder: ChannelBuilder, count: usize) -> Channel {
    let channel = builder.build().unwrap();
    support::eventually(|| channel.status().ready == count).await;
    channel
}

async fn call(client: &mut TrimClient<Channel>) -> Result<(), Status> {
    let request = TrimRequest { s: "x".to_owned() };
    client.trim_space(request).await.map(|_| ())
}

/// Makes calls from concurrent callers and expects that all succeed.
async fn load(channel: &Channel, callers: usize, calls: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let mut client = TrimClient::new(channel.clone());
        tasks.spawn(async move {
            for _ in 0..calls {
                call(&mut client).await.unwrap();
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

/// Every instance has its share, but for this many percent of it.
fn assert_even(calls: &[usize], percent: usize, end: impl std::fmt::Debug) {
    let share = calls.iter().sum::<usize>() / calls.len();
    for count in calls {
        let difference = count.abs_diff(share);
        assert!(
            difference * 100 <= share * percent,
            "{calls:?} with {end:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_after_its_stream_was_reset_does_not_break_the_connection() {
    let server = RawServer::start(End::AnswerAfterReset).await;
    let channel = ready(builder([server.instance()]), 1).await;
    // The first call is repeated.
    load(&channel, 3, 10).await;
    assert_eq!(server.connections_made(), 1);
}

async fn raw_servers(end: End) -> Vec<RawServer> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(RawServer::start(end).await);
    }
    servers
}

#[tokio::test]
async fn no_call_fails_where_every_connection_ends_after_a_number_of_calls() {
    for (limit, percent) in [(1_000, 3), (100, 4), (3, 6)] {
        for end in [End::GoAwayAfter(limit), End::CloseAfter(limit)] {
            // One caller and connections of three calls keep in step with each other.
            let percent = if matches!(end, End::CloseAfter(3)) {
                30
            } else {
                percent
            };
            let servers = raw_servers(end).await;
            let channel = ready(builder(servers.iter().map(RawServer::instance)), 3).await;
            // A call that breaks with the byte stream may be repeated, so nothing is counted then.
            let alone = matches!(end, End::CloseAfter(_));
            let callers = if alone { 1 } else { 8 };
            load(&channel, callers, 6_000 / callers).await;
            let calls: Vec<_> = servers.iter().map(RawServer::calls).collect();
            assert_even(&calls, percent, end);
            if !alone {
                assert_eq!(calls.iter().sum::<usize>(), 6_000, "{end:?}: {calls:?}");
            }
            for server in &servers {
                let connections = server.connections_made();
                let needed = server.calls().div_ceil(limit);
                assert!(connections <= needed + 1, "{connections} for {needed}");
            }
        }
    }
}

#[tokio::test]
async fn a_single_instance_that_ends_every_connection_loses_no_call() {
    for eager in [true, false] {
        let server = RawServer::start(End::GoAwayAfter(3)).await;
        let channel = builder([server.instance()]).eager(eager).build().unwrap();
        load(&channel, 2, 150).await;
        assert_eq!(server.calls(), 300);
    }
}

#[tokio::test]
async fn a_server_that_goes_away_before_an_answer_is_not_connected_to_without_pause() {
    for eager in [true, false] {
        let useless = RawServer::start(End::GoAwayAfter(0)).await;
        let useful = RawServer::start(End::GoAwayAfter(1_000)).await;
        let hour = Duration::from_secs(3_600);
        let channel = builder([useless.instance(), useful.instance()])
            .eager(eager)
            .connect_backoff(hour, hour)
            .build()
            .unwrap();
        load(&channel, 1, 500).await;
        // The first attempt after a lost connection needs no delay.
        let made = useless.connections_made();
        assert!((1..=2).contains(&made), "{made} connections");
        assert_eq!((useless.calls(), useful.calls()), (0, 500));
    }
}

/// A trim service whose calls take a while.
#[derive(Clone, Default)]
struct Slow(Arc<AtomicUsize>);

#[tonic::async_trait]
impl Trim for Slow {
    async fn trim_space(&self, _: Request<TrimRequest>) -> Result<Response<TrimResponse>, Status> {
        self.0.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(100)).await;
        Ok(Response::new(TrimResponse::default()))
    }
}

/// A tonic server that ends its connections at this age. Returns its instance and its calls.
async fn aging(age: Duration) -> (Instance, Slow) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = Slow::default();
    tokio::spawn(
        Server::builder()
            .max_connection_age(age)
            .add_service(TrimServer::new(service.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (Instance::new("127.0.0.1", port).unwrap(), service)
}

#[tokio::test]
async fn no_call_fails_where_every_connection_ends_at_an_age_with_calls_in_flight() {
    let age = Duration::from_millis(700);
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(aging(age).await);
    }
    let instances = servers.iter().map(|(instance, _)| instance.clone());
    let channel = ready(builder(instances), 3).await;
    let started = Instant::now();
    load(&channel, 60, 25).await;
    // Each call takes 100 ms, so every connection has ended several times.
    assert!(started.elapsed() > 3 * age);
    let calls: Vec<_> = servers
        .iter()
        .map(|(_, service)| service.0.load(Ordering::SeqCst))
        .collect();
    assert_eq!(calls.iter().sum::<usize>(), 1_500);
    assert_even(&calls, 5, age);
}
