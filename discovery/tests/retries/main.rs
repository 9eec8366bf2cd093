//! Retries as a caller sees them: the answer of another instance where a retry is safe, else an
//! error that describes every attempt.
//!
//! Most tests run on a paused clock with servers in memory. The behaviour of real HTTP/2
//! connections is tested on sockets, at the end of the file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod deadlines;
mod overdue;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use discovery::{
    CallError, CallErrorKind, Channel, ChannelBuilder, Deadline, EjectionPolicy, Instance,
    ServedBy,
    registry::StaticRegistry,
    retry::{Hedge, RetryPolicy},
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::{
    TrimServer,
    memory::{Memory, MemoryServer},
};
use testkit::faulty::{Fault, FaultyServer};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

const TRIM: &str = "/pb.Trim/TrimSpace";
/// Longer than any test waits for a result that must come at once.
const LONG: Duration = Duration::from_secs(3_600);

/// A channel over sockets, without outlier ejection: only retries are tested here.
fn over_sockets(instances: impl IntoIterator<Item = Instance>) -> ChannelBuilder {
    retrying(StaticRegistry::new(instances))
}

/// The same over connections in memory.
fn channel(memory: &Memory) -> ChannelBuilder {
    retrying(memory.registry()).factory(memory.clone())
}

fn retrying(registry: StaticRegistry) -> ChannelBuilder {
    without_ejection(registry).retry_timeout(LONG)
}

fn without_ejection(registry: StaticRegistry) -> ChannelBuilder {
    Channel::from_registry(Arc::new(registry), "trim_service")
        .ejection(EjectionPolicy::default().with_enabled(false))
}

/// A channel in memory with the default timeouts.
fn untimed(memory: &Memory) -> ChannelBuilder {
    without_ejection(memory.registry()).factory(memory.clone())
}

async fn built(builder: ChannelBuilder) -> TrimClient<Channel> {
    let channel = builder.build().unwrap();
    support::eventually(|| channel.status().ready == channel.status().instances).await;
    TrimClient::new(channel)
}

async fn call(client: &mut TrimClient<Channel>) -> Result<Response<proto::TrimResponse>, Status> {
    client.trim_space(TrimRequest { s: " x ".into() }).await
}

/// Asserts that of two servers in rotation the first receives calls and answers none.
async fn the_second_answers_six_calls(servers: &[MemoryServer], client: &mut TrimClient<Channel>) {
    for _ in 0..6 {
        let response = call(client).await.unwrap();
        let served = response.extensions().get::<ServedBy>().unwrap();
        assert_eq!(served.0.id, servers[1].instance().id);
    }
    assert_eq!(servers[0].calls(), 3);
}

fn unavailable(server: &MemoryServer) {
    server.behave(|_| async { Err(Status::unavailable("overloaded")) });
}

#[tokio::test(start_paused = true)]
async fn a_call_is_saved_by_another_instance_and_never_goes_back_while_one_is_left() {
    let memory = Memory::with_servers(3);
    let servers = memory.servers();
    servers[..2].iter().for_each(unavailable);
    let mut retry = RetryPolicy::default();
    retry.timeout = Some(LONG);
    retry.budget.reserve = 1_000;
    let builder = channel(&memory).retry(retry);
    let mut client = built(builder).await;
    for _ in 0..30 {
        let before: Vec<_> = servers.iter().map(MemoryServer::calls).collect();
        let response = call(&mut client).await.unwrap();
        let served = response.extensions().get::<ServedBy>().unwrap();
        assert_eq!(served.0.id, servers[2].instance().id);
        for (server, before) in servers.iter().zip(before) {
            assert!(server.calls() - before <= 1, "one instance was asked twice");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_describes_every_attempt() {
    let memory = Memory::with_servers(4);
    let servers = memory.servers();
    servers.iter().for_each(unavailable);
    let mut client = built(channel(&memory)).await;
    let status = call(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let named: BTreeSet<_> = servers
        .iter()
        .map(|server| server.instance().id)
        .filter(|id| status.message().contains(id))
        .collect();
    assert_eq!(named.len(), 3, "{status}");
    assert_eq!(status.message().matches("overloaded").count(), 3);
    let error = CallError::of(&status).unwrap();
    assert_eq!(error.kind, CallErrorKind::AttemptsExhausted);
    assert_eq!(error.attempts.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_internal_error_is_repeated_only_where_declared_idempotent() {
    for idempotent in [false, true] {
        let memory = Memory::with_servers(2);
        let servers = memory.servers();
        servers[0].behave(|_| async { Err(Status::internal("bug")) });
        let mut builder = channel(&memory);
        if idempotent {
            builder = builder.idempotent([TRIM]);
        }
        let mut client = built(builder).await;
        let mut failed = 0;
        for _ in 0..10 {
            failed += usize::from(call(&mut client).await.is_err());
        }
        assert_eq!(failed, if idempotent { 0 } else { 5 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_idempotent_is_sent_once_with_the_whole_timeout() {
    let memory = Memory::with_servers(1);
    let servers = memory.servers();
    servers[0].behave(|_| pending());
    let builder = channel(&memory)
        .retry_timeout(Duration::from_millis(150))
        .attempt_timeout(Duration::from_millis(10));
    let status = call(&mut built(builder).await).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(servers[0].calls(), 1);
    assert!(
        status.message().contains("not declared idempotent"),
        "{status}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_can_forbid_another_attempt() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    for server in servers {
        server.behave(|_| async {
            let mut status = Status::unavailable("full");
            let metadata = status.metadata_mut();
            metadata.insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
            Err(status)
        });
    }
    let mut client = built(channel(&memory)).await;
    let status = call(&mut client).await.unwrap_err();
    assert_eq!(status.message(), "full");
    assert_eq!(servers[0].calls() + servers[1].calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_budget_ends_retries_when_everything_fails() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    servers.iter().for_each(unavailable);
    let mut client = built(channel(&memory)).await;
    let mut last = String::new();
    for _ in 0..100 {
        last = call(&mut client).await.unwrap_err().message().to_owned();
    }
    let calls = servers[0].calls() + servers[1].calls();
    // The reserve of ten, and its refill while retries back off.
    assert!((110..=112).contains(&calls), "{calls}");
    assert_eq!(last, "overloaded");
}

#[tokio::test]
async fn a_single_failure_is_the_servers_own_answer() {
    let server = TrimServer::start().await;
    server.behave(|_| async {
        let mut status = Status::not_found("no such text");
        status
            .metadata_mut()
            .insert("x-detail", "7".parse().unwrap());
        Err(status)
    });
    let mut client = built(over_sockets([server.instance()])).await;
    let status = call(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "no such text");
    assert_eq!(status.metadata().get("x-detail").unwrap(), "7");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_replaced() {
    for fault in [
        Fault::RefuseStream,
        Fault::ResetAfterHeaders,
        Fault::ResetInMessage,
        Fault::CloseInMessage,
        Fault::GoAway,
        Fault::UnavailableInTrailers,
        Fault::Http503,
    ] {
        let faulty = FaultyServer::start(fault).await.unwrap();
        let good = TrimServer::start().await;
        let builder = over_sockets([support::faulty(&faulty), good.instance()]).idempotent([TRIM]);
        let channel = builder.build().unwrap();
        support::eventually(|| channel.status().ready == 2).await;
        let mut client = TrimClient::new(channel);
        for _ in 0..10 {
            let answer = call(&mut client).await;
            assert_eq!(answer.unwrap().get_ref().s, "x", "{fault:?}");
        }
        assert!(faulty.calls() > 0, "no call received {fault:?}");
    }
}

#[tokio::test]
async fn a_refused_call_is_sent_again_although_it_is_not_idempotent() {
    let refusing = FaultyServer::start(Fault::RefuseStream).await.unwrap();
    let good = TrimServer::start().await;
    let mut builder = over_sockets([support::faulty(&refusing), good.instance()]);
    builder = builder.retry_max(1);
    let mut client = built(builder).await;
    for _ in 0..10 {
        call(&mut client).await.unwrap();
    }
    assert!(refusing.calls() > 0);
    assert_eq!(good.calls(), 10);
}
