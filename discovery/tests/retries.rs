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
async fn an_overdue_attempt_may_still_answer() {
    for count in [1, 3] {
        let memory = Memory::with_servers(count);
        let servers = memory.servers();
        for server in servers {
            server.behave(|_| async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(())
            });
        }
        let mut client = built(untimed(&memory).idempotent([TRIM])).await;
        for nth in 1..=30 {
            let begun = Instant::now();
            call(&mut client).await.unwrap();
            assert_eq!(begun.elapsed().as_millis(), 301);
            let calls: usize = servers.iter().map(MemoryServer::calls).sum();
            // Overdue attempts are followed by others elsewhere, as far as the budget allows.
            let others = usize::from(count > 1) * nth.min(20);
            assert!(calls <= nth + others, "{calls} for {nth}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_overdue_attempt_is_cancelled_when_another_has_answered() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    let under_way = Arc::new(());
    let held = Arc::clone(&under_way);
    servers[0].behave(move |_| {
        let held = Arc::clone(&held);
        async move {
            pending::<()>().await;
            drop(held);
            Ok(())
        }
    });
    let mut client = built(untimed(&memory).idempotent([TRIM])).await;
    for _ in 0..2 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(servers[0].calls(), 1);
    // One clone is in the behaviour itself.
    assert_eq!(Arc::strong_count(&under_way), 2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_beside_an_overdue_one_is_followed_at_once() {
    let memory = Memory::with_servers(3);
    let servers = memory.servers();
    let builder = channel(&memory)
        .attempt_timeout(Duration::from_millis(50))
        .idempotent([TRIM]);
    let mut client = built(builder).await;
    // The order of the rotation.
    let mut order = Vec::new();
    for _ in 0..3 {
        let response = call(&mut client).await.unwrap();
        let served = response.extensions().get::<ServedBy>().unwrap();
        order.push(usize::from(served.0.port) - 1);
    }
    servers[order[0]].behave(|_| pending());
    // Whichever of the others is called first fails once.
    let failed = Arc::new(AtomicBool::new(false));
    for other in &order[1..] {
        let failed = Arc::clone(&failed);
        servers[*other].behave(move |_| {
            let fails = !failed.swap(true, Ordering::SeqCst);
            async move {
                if fails {
                    return Err(Status::unavailable("overloaded"));
                }
                Ok(())
            }
        });
    }
    let begun = Instant::now();
    let response = call(&mut client).await.unwrap();
    let served = response.extensions().get::<ServedBy>().unwrap();
    assert_ne!(served.0.id, servers[order[0]].instance().id);
    let elapsed = begun.elapsed().as_millis();
    assert!((52..=80).contains(&elapsed), "{elapsed}");
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
    // The header has what is left of the caller's deadline, not the limit of the attempt.
    let sent = servers[0].timeouts();
    let left = |text: &String| {
        let value = text.parse().unwrap();
        let headers = http::HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), value)]);
        let deadline = Deadline::from_headers(&headers).unwrap().unwrap();
        deadline.instant() - Instant::now().into_std()
    };
    assert_eq!(sent[0], "200m");
    let rest = Duration::from_millis(50);
    assert!(sent[1..].iter().all(|text| left(text) <= rest), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_of_the_caller_no_deadline_is_sent_and_500_ms_apply() {
    let memory = Memory::with_servers(1);
    let server = &memory.servers()[0];
    server.behave(|_| pending());
    let mut client = built(untimed(&memory)).await;
    let begun = Instant::now();
    let status = call(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let expected = "within 500ms (the default of retry_timeout)";
    assert!(status.message().contains(expected), "{status}");
    assert_eq!(begun.elapsed().as_millis(), 500);
    assert_eq!(server.calls(), 1);
    assert!(server.timeouts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_caller_gets_the_time_it_gives() {
    let memory = Memory::with_servers(1);
    let server = &memory.servers()[0];
    server.behave(|_| async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Ok(())
    });
    let call = async |builder: ChannelBuilder, given| {
        let mut request = Request::new(TrimRequest { s: "x".into() });
        request.set_timeout(Duration::from_millis(given));
        let mut client = built(builder).await;
        let begun = Instant::now();
        let answer = client.trim_space(request).await;
        (answer.map(drop), begun.elapsed().as_millis())
    };
    let (answer, _) = call(untimed(&memory), 5_000).await;
    answer.unwrap();
    assert_eq!(server.timeouts(), ["5000m"]);
    let second = Duration::from_secs(1);
    let (answer, _) = call(untimed(&memory).retry_timeout(second), 5_000).await;
    answer.unwrap();
    let capped = untimed(&memory).retry_timeout(second / 2);
    for (builder, given) in [(untimed(&memory), 300), (capped, 5_000)] {
        let (answer, elapsed) = call(builder, given).await;
        assert_eq!(answer.unwrap_err().code(), Code::DeadlineExceeded);
        assert_eq!(elapsed, u128::from(given.min(500)));
    }
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
    let first = Arc::new(AtomicBool::new(true));
    for server in servers {
        let (out, first) = (Arc::clone(&out), Arc::clone(&first));
        server.behave(move |_| {
            let (out, first) = (Arc::clone(&out), Arc::clone(&first));
            async move {
                if first.swap(false, Ordering::SeqCst) {
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

#[cfg(feature = "descriptors")]
#[tokio::test(start_paused = true)]
async fn a_declared_stream_has_no_limit_for_its_first_message() {
    use tonic_health::pb::{FILE_DESCRIPTOR_SET, HealthCheckRequest, health_client::HealthClient};
    let memory = Memory::with_servers(1);
    for (builder, waits) in [
        (untimed(&memory), false),
        (
            untimed(&memory).file_descriptor_set(FILE_DESCRIPTOR_SET),
            true,
        ),
    ] {
        let channel = builder.build().unwrap();
        channel.ready().await;
        memory.servers()[0].fall_silent();
        let mut client = HealthClient::new(channel);
        let updates = client.watch(HealthCheckRequest::default());
        let waited = tokio::time::timeout(LONG, updates).await;
        assert_eq!(waited.is_err(), waits, "{waited:?}");
    }
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
