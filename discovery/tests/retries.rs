//! What a caller sees when attempts fail: another instance's answer where that is safe, and an
//! error that tells the whole story where it is not.

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
use support::TrimServer;
use testkit::faulty::{Fault, FaultyServer};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

const TRIM: &str = "/pb.Trim/TrimSpace";
/// Longer than any test waits for what must come at once.
const LONG: Duration = Duration::from_secs(3_600);

/// A channel that ejects nothing: here it is retrying that has to cope.
fn channel(instances: impl IntoIterator<Item = Instance>) -> ChannelBuilder {
    let mut ejection = EjectionPolicy::default();
    ejection.enabled = false;
    Channel::from_registry(Arc::new(StaticRegistry::new(instances)), "trim_service")
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

/// Of two servers in rotation the first gets its turns and answers none of them.
async fn the_second_answers_six_calls(servers: &[TrimServer], client: &mut TrimClient<Channel>) {
    for _ in 0..6 {
        let response = call(client).await.unwrap();
        let served = response.extensions().get::<ServedBy>().unwrap();
        assert_eq!(served.0.id, servers[1].instance().id);
    }
    assert_eq!(servers[0].calls(), 3);
}

fn unavailable(server: &TrimServer) {
    server.behave(|_| async { Err(Status::unavailable("out to lunch")) });
}

#[tokio::test]
async fn a_call_is_saved_by_another_instance_and_never_goes_back_while_one_is_left() {
    let servers = TrimServer::start_many(3).await;
    servers[..2].iter().for_each(unavailable);
    let mut retry = RetryPolicy::default();
    retry.timeout = LONG;
    retry.budget.reserve = 1_000;
    let builder = channel(servers.iter().map(TrimServer::instance)).retry(retry);
    let mut client = built(builder).await;
    for _ in 0..30 {
        let before: Vec<_> = servers.iter().map(TrimServer::calls).collect();
        let response = call(&mut client).await.unwrap();
        let served = response.extensions().get::<ServedBy>().unwrap();
        assert_eq!(served.0.id, servers[2].instance().id);
        for (server, before) in servers.iter().zip(before) {
            assert!(server.calls() - before <= 1, "one instance was asked twice");
        }
    }
}

#[tokio::test]
async fn the_error_tells_what_every_attempt_met() {
    let servers = TrimServer::start_many(4).await;
    servers.iter().for_each(unavailable);
    let mut client = built(channel(servers.iter().map(TrimServer::instance))).await;
    let status = call(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let named: BTreeSet<_> = servers
        .iter()
        .map(|server| server.instance().id)
        .filter(|id| status.message().contains(id))
        .collect();
    assert_eq!(named.len(), 3, "{status}");
    assert_eq!(status.message().matches("out to lunch").count(), 3);
    let error = CallError::of(&status).unwrap();
    assert_eq!(error.kind, CallErrorKind::AttemptsExhausted);
    assert_eq!(error.attempts.len(), 3);
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
    let mut client = built(channel([server.instance()])).await;
    let status = call(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "no such text");
    assert_eq!(status.metadata().get("x-detail").unwrap(), "7");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn an_internal_error_is_repeated_only_where_declared_idempotent() {
    for idempotent in [false, true] {
        let servers = TrimServer::start_many(2).await;
        servers[0].behave(|_| async { Err(Status::internal("bug")) });
        let mut builder = channel(servers.iter().map(TrimServer::instance));
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

#[tokio::test]
async fn a_hung_instance_costs_an_attempt_and_not_the_call() {
    let servers = TrimServer::start_many(2).await;
    servers[0].behave(|_| pending());
    let builder = channel(servers.iter().map(TrimServer::instance))
        .attempt_timeout(Duration::from_millis(50))
        .idempotent([TRIM]);
    let mut client = built(builder).await;
    the_second_answers_six_calls(&servers, &mut client).await;
}

#[tokio::test]
async fn what_may_not_be_repeated_is_sent_once_and_has_all_the_time() {
    let server = TrimServer::start().await;
    server.behave(|_| pending());
    let builder = channel([server.instance()])
        .retry_timeout(Duration::from_millis(150))
        .attempt_timeout(Duration::from_millis(10));
    let status = call(&mut built(builder).await).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(server.calls(), 1);
    assert!(
        status.message().contains("not declared idempotent"),
        "{status}"
    );
}

#[tokio::test]
async fn the_callers_deadline_comes_first_and_is_passed_on_shrunk() {
    let server = TrimServer::start().await;
    server.behave(|_| pending());
    let builder = channel([server.instance()])
        .idempotent([TRIM])
        .attempt_timeout(Duration::from_millis(150));
    let mut request = Request::new(TrimRequest { s: "x".into() });
    request.set_timeout(Duration::from_millis(200));
    let status = built(builder).await.trim_space(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // The first attempt has its own time, the second one what is left of the caller's.
    let sent = server.timeouts();
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

#[tokio::test]
async fn a_malformed_deadline_is_the_callers_mistake() {
    let server = TrimServer::start().await;
    let mut client = built(channel([server.instance()])).await;
    for value in ["soon", "-1S", "999999999S", ""] {
        let mut request = Request::new(TrimRequest { s: "x".into() });
        let metadata = request.metadata_mut();
        metadata.insert("grpc-timeout", value.parse().unwrap());
        let status = client.trim_space(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{value:?}");
    }
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn a_server_can_forbid_another_attempt() {
    let servers = TrimServer::start_many(2).await;
    for server in &servers {
        server.behave(|_| async {
            let mut status = Status::unavailable("full");
            let metadata = status.metadata_mut();
            metadata.insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
            Err(status)
        });
    }
    let mut client = built(channel(servers.iter().map(TrimServer::instance))).await;
    let status = call(&mut client).await.unwrap_err();
    assert_eq!(status.message(), "full");
    assert_eq!(servers[0].calls() + servers[1].calls(), 1);
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
        let builder = channel([support::faulty(&faulty), good.instance()]).idempotent([TRIM]);
        let channel = builder.build().unwrap();
        support::eventually(|| channel.status().ready == 2).await;
        let mut client = TrimClient::new(channel);
        for _ in 0..10 {
            let answer = call(&mut client).await;
            assert_eq!(answer.unwrap().get_ref().s, "x", "{fault:?}");
        }
        assert!(faulty.calls() > 0, "{fault:?} was never met");
    }
}

#[tokio::test]
async fn what_a_server_refused_is_sent_again_though_it_may_not_be_repeated() {
    let refusing = FaultyServer::start(Fault::RefuseStream).await.unwrap();
    let good = TrimServer::start().await;
    let mut builder = channel([support::faulty(&refusing), good.instance()]);
    builder = builder.retry_max(1);
    let mut client = built(builder).await;
    for _ in 0..10 {
        call(&mut client).await.unwrap();
    }
    assert!(refusing.calls() > 0);
    assert_eq!(good.calls(), 10);
}

#[tokio::test]
async fn the_budget_ends_retries_when_everything_fails() {
    let servers = TrimServer::start_many(2).await;
    servers.iter().for_each(unavailable);
    let mut client = built(channel(servers.iter().map(TrimServer::instance))).await;
    let mut last = String::new();
    for _ in 0..100 {
        last = call(&mut client).await.unwrap_err().message().to_owned();
    }
    let calls = servers[0].calls() + servers[1].calls();
    // The reserve of ten, and at most a few tenths of one that came back.
    assert!((110..=112).contains(&calls), "{calls}");
    assert_eq!(last, "out to lunch");
}

#[tokio::test]
async fn a_slow_answer_is_overtaken_by_a_second_attempt() {
    let servers = TrimServer::start_many(2).await;
    servers[0].behave(|_| pending());
    let builder = channel(servers.iter().map(TrimServer::instance))
        .attempt_timeout(LONG)
        .idempotent([TRIM])
        .hedge(Hedge::After(Duration::from_millis(20)));
    let mut client = built(builder).await;
    the_second_answers_six_calls(&servers, &mut client).await;
}

#[tokio::test]
async fn a_status_that_nothing_mends_ends_a_hedged_call() {
    let servers = TrimServer::start_many(2).await;
    // Whoever is called second hangs; the first one has a definite answer, once both are out.
    let out = Arc::new(tokio::sync::Semaphore::new(0));
    let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    for server in &servers {
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
    let builder = channel(servers.iter().map(TrimServer::instance))
        .idempotent([TRIM])
        .attempt_timeout(LONG)
        .hedge(Hedge::After(Duration::from_millis(20)));
    let mut client = built(builder).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), call(&mut client)).await;
    let status = answer.expect("waits for the one that hangs").unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert_eq!(status.message(), "no such text");
}

#[tokio::test]
async fn a_stream_of_answers_outlives_the_retry_timeout() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let server = TrimServer::start().await;
    let builder = channel([server.instance()]).retry_timeout(Duration::from_millis(300));
    let channel = builder.build().unwrap();
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest::default();
    let mut updates = client.watch(request).await.unwrap().into_inner();
    assert_eq!(updates.message().await.unwrap().unwrap().status, 1);
    let next = tokio::time::timeout(Duration::from_millis(600), updates.message()).await;
    assert!(next.is_err(), "the stream ended: {next:?}");
}

#[tokio::test]
async fn the_callers_deadline_holds_for_the_whole_stream() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let server = TrimServer::start().await;
    let mut client = HealthClient::new(channel([server.instance()]).build().unwrap());
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(300));
    let mut updates = client.watch(request).await.unwrap().into_inner();
    assert!(updates.message().await.unwrap().is_some());
    let status = updates.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}
