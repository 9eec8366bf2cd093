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

mod support;

use std::{collections::BTreeSet, future::pending, sync::Arc, time::Duration};

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
    let mut ejection = EjectionPolicy::default();
    ejection.enabled = false;
    Channel::from_registry(Arc::new(registry), "trim_service")
        .retry_timeout(LONG)
        .ejection(ejection)
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
    retry.timeout = LONG;
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
async fn a_hung_instance_costs_an_attempt_and_not_the_call() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    servers[0].behave(|_| pending());
    let builder = channel(&memory)
        .attempt_timeout(Duration::from_millis(50))
        .idempotent([TRIM]);
    let mut client = built(builder).await;
    the_second_answers_six_calls(servers, &mut client).await;
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
async fn the_callers_deadline_comes_first_and_attempts_get_what_is_left() {
    let memory = Memory::with_servers(1);
    let servers = memory.servers();
    servers[0].behave(|_| pending());
    let builder = channel(&memory)
        .idempotent([TRIM])
        .attempt_timeout(Duration::from_millis(150));
    let mut request = Request::new(TrimRequest { s: "x".into() });
    request.set_timeout(Duration::from_millis(200));
    let status = built(builder).await.trim_space(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // The first attempt has its own timeout, the second what is left of the deadline.
    let sent = servers[0].timeouts();
    let left = |text: &String| {
        let value = text.parse().unwrap();
        let headers = http::HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), value)]);
        let deadline = Deadline::from_headers(&headers).unwrap().unwrap();
        deadline.instant() - Instant::now()
    };
    assert_eq!(sent[0], "150m");
    let rest = Duration::from_millis(50);
    assert!(sent[1..].iter().all(|text| left(text) <= rest), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_malformed_deadline_is_the_callers_mistake() {
    let memory = Memory::with_servers(1);
    let servers = memory.servers();
    let mut client = built(channel(&memory)).await;
    for value in ["soon", "-1S", "999999999S", ""] {
        let mut request = Request::new(TrimRequest { s: "x".into() });
        let metadata = request.metadata_mut();
        metadata.insert("grpc-timeout", value.parse().unwrap());
        let status = client.trim_space(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{value:?}");
    }
    assert_eq!(servers[0].calls(), 0);
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

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_overtaken_by_a_second_attempt() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    servers[0].behave(|_| pending());
    let builder = channel(&memory)
        .attempt_timeout(LONG)
        .idempotent([TRIM])
        .hedge(Hedge::After(Duration::from_millis(20)));
    let mut client = built(builder).await;
    the_second_answers_six_calls(servers, &mut client).await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_not_retried_ends_a_hedged_call() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    // The second call hangs. The first has a definite answer once both are in flight.
    let out = Arc::new(tokio::sync::Semaphore::new(0));
    let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    for server in servers {
        let (out, first) = (Arc::clone(&out), Arc::clone(&first));
        server.behave(move |_| {
            let (out, first) = (Arc::clone(&out), Arc::clone(&first));
            async move {
                if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                    let _both_are_out = out.acquire().await;
                    return Err(Status::not_found("no such text"));
                }
                out.add_permits(1);
                pending().await
            }
        });
    }
    let builder = channel(&memory)
        .idempotent([TRIM])
        .attempt_timeout(LONG)
        .hedge(Hedge::After(Duration::from_millis(20)));
    let mut client = built(builder).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), call(&mut client)).await;
    let status = answer
        .expect("the call waited for the instance that hangs")
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert_eq!(status.message(), "no such text");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_answers_outlives_the_retry_timeout() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let memory = Memory::with_servers(1);
    let builder = channel(&memory).retry_timeout(Duration::from_millis(300));
    let channel = builder.build().unwrap();
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest::default();
    let mut updates = client.watch(request).await.unwrap().into_inner();
    assert_eq!(updates.message().await.unwrap().unwrap().status, 1);
    let next = tokio::time::timeout(Duration::from_millis(600), updates.message()).await;
    assert!(next.is_err(), "the stream ended: {next:?}");
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_holds_for_the_whole_stream() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let memory = Memory::with_servers(1);
    let mut client = HealthClient::new(channel(&memory).build().unwrap());
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(300));
    let mut updates = client.watch(request).await.unwrap().into_inner();
    assert!(updates.message().await.unwrap().is_some());
    let status = updates.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
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
