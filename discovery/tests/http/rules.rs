//! What is repeated, what the caller receives, and what ejects an instance: in memory, on a paused clock.

use std::{future::pending, time::Duration};

use discovery::{
    BudgetPolicy, CallErrorKind, CallOptions, Deadline, EarlierAttempts, EjectionPolicy,
    RetryPolicy, ServedBy,
    connection::SendError,
    http::{Rules, status_for},
};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

use crate::{
    answer, ejected, get,
    memory::{Memory, connected, respond},
    post, request, send, text,
};

/// Servers of which the first fails as the function says.
fn first_fails(failure: impl Fn() -> crate::memory::Answer + Send + Sync + 'static) -> Memory {
    Memory::new(3, move |seen| {
        let answer = match seen.port {
            1 => failure(),
            _ => respond(200, &[], "ok"),
        };
        async { answer }
    })
}

fn lost() -> crate::memory::Answer {
    Err(SendError::new("connection reset"))
}

/// Sends until the first server has received a request; returns the answer to that one.
async fn until_first(
    memory: &Memory,
    channel: &discovery::http::Channel,
    method: &Method,
) -> Result<u16, discovery::CallError> {
    loop {
        let response = send(channel, request(method.clone(), "/orders", "text")).await;
        if memory.ports().contains(&1) {
            return response.map(|response| response.status().as_u16());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_costs_no_idempotent_request_and_repeats_no_other() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        let memory = first_fails(lost);
        let channel = memory.channel().await;
        let method: Method = method.parse().unwrap();
        let status = until_first(&memory, &channel, &method).await.unwrap();
        assert_eq!(status, 200, "{method}");
    }
    for method in ["POST", "PATCH"] {
        let memory = first_fails(lost);
        let channel = memory.channel().await;
        let method: Method = method.parse().unwrap();
        let error = until_first(&memory, &channel, &method).await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::NotRetryable, "{method}");
        assert!(error.to_string().contains("connection reset"), "{error}");
        assert_eq!(memory.ports().last(), Some(&1), "{method}");
        assert_eq!(status_for(&error), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_with_a_key_or_an_option_is_repeated_and_a_get_can_be_kept_from_it() {
    let memory = first_fails(lost);
    let channel = memory.channel().await;
    for _ in 0..6 {
        let mut keyed = post("/orders");
        let key = "7".parse().unwrap();
        keyed.headers_mut().insert("idempotency-key", key);
        assert_eq!(answer(&channel, keyed).await, (200, "ok".to_owned()));
        let mut marked = post("/orders");
        let option = CallOptions::new().with_idempotent(true);
        marked.extensions_mut().insert(option);
        assert_eq!(answer(&channel, marked).await, (200, "ok".to_owned()));
    }
    assert!(memory.ports().contains(&1));
    assert!(memory.seen().iter().all(|seen| seen.body == "text"));

    let memory = first_fails(lost);
    let channel = memory.channel().await;
    let mut failed = 0;
    for _ in 0..3 {
        let mut once = get("/orders");
        let option = CallOptions::new().with_idempotent(false);
        once.extensions_mut().insert(option);
        failed += usize::from(send(&channel, once).await.is_err());
    }
    assert_eq!(failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_not_sent_goes_elsewhere_whatever_its_method() {
    let memory = first_fails(|| Err(SendError::unprocessed("refused")));
    let channel = memory.channel().await;
    for _ in 0..6 {
        assert_eq!(answer(&channel, post("/orders")).await.0, 200);
    }
    assert!(memory.ports().contains(&1));
}

#[tokio::test(start_paused = true)]
async fn a_bad_gateway_is_repeated_elsewhere_and_reported_as_an_earlier_attempt() {
    for status in [502, 503, 504] {
        let memory = first_fails(move || respond(status, &[], "down"));
        let channel = memory.channel().await;
        for _ in 0..3 {
            let response = send(&channel, get("/orders")).await.unwrap();
            assert_eq!(response.status(), 200);
            let ServedBy(instance) = response.extensions().get().cloned().unwrap();
            assert_ne!(instance.port, 1);
            if let Some(EarlierAttempts(earlier)) = response.extensions().get() {
                assert_eq!(earlier[0].instance.port, 1);
                let reason = format!("HTTP status {status}");
                assert!(earlier[0].reason.starts_with(&reason), "{}", earlier[0]);
            }
        }
        assert_eq!(memory.ports().iter().filter(|port| **port == 1).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_of_a_server_is_the_callers_when_attempts_end() {
    let memory = Memory::new(2, |seen| async move {
        let text = format!("{} is in maintenance", seen.port);
        respond(503, &[("x-reason", "maintenance")], &text)
    });
    let channel = memory.channel().await;
    let response = send(&channel, get("/orders")).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["x-reason"], "maintenance");
    let EarlierAttempts(earlier) = response.extensions().get().cloned().unwrap();
    assert_eq!(earlier.len(), 2);
    let last = memory.ports()[2];
    assert_eq!(text(response).await, format!("{last} is in maintenance"));
    assert_eq!(memory.seen().len(), 3);
    // A request that is not idempotent is sent once.
    let (status, _) = answer(&channel, post("/orders")).await;
    assert_eq!((status, memory.seen().len()), (503, 4));
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_ends_attempts_with_the_servers_answer() {
    let memory = Memory::new(2, |_| async { respond(503, &[], "no") });
    let budget = BudgetPolicy::default().with_share(0.0).with_reserve(0);
    let policy = RetryPolicy::default().with_budget(budget);
    let channel = connected(memory.builder().retry(policy)).await;
    let (status, text) = answer(&channel, get("/orders")).await;
    assert_eq!((status, text.as_str()), (503, "no"));
    assert_eq!(memory.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn other_statuses_are_the_callers_at_once() {
    for status in [200, 204, 301, 304, 400, 401, 404, 409, 422, 429, 500, 501] {
        let memory = Memory::new(2, move |_| async move { respond(status, &[], "") });
        let channel = memory.channel().await;
        assert_eq!(answer(&channel, get("/orders")).await.0, status);
        assert_eq!(memory.seen().len(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_operator_chooses_the_statuses_that_are_repeated() {
    let memory = first_fails(|| respond(500, &[], "broken"));
    let rules = Rules::new().with_retry_statuses([StatusCode::INTERNAL_SERVER_ERROR]);
    let channel = connected(memory.builder().rules(rules)).await;
    for _ in 0..3 {
        assert_eq!(answer(&channel, get("/orders")).await.0, 200);
    }
    assert!(memory.ports().contains(&1));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_answers_with_server_errors_is_ejected_and_one_with_client_errors_is_not()
{
    let memory = Memory::new(3, |seen| async move {
        match (seen.port, seen.method.as_str()) {
            (1, "HEAD") => respond(500, &[], ""),
            (1, _) => respond(500, &[], "broken"),
            (2, _) => respond(404, &[], "none"),
            _ => respond(200, &[], "ok"),
        }
    });
    let policy = EjectionPolicy::default().with_base_time(Duration::from_secs(3));
    let channel = connected(memory.builder().ejection(policy)).await;
    for _ in 0..60 {
        answer(&channel, get("/orders")).await;
    }
    let out: Vec<_> = channel
        .endpoints()
        .into_iter()
        .filter(|one| one.ejection.is_some())
        .collect();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].instance.port, 1);
    let received = memory.ports().iter().filter(|port| **port == 1).count();
    assert!(received < 10, "{received}");
    // Its probe (HEAD /) fails, so it stays out.
    sleep(Duration::from_secs(5)).await;
    answer(&channel, get("/orders")).await;
    assert_eq!(ejected(&channel), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_returns_when_its_health_path_answers() {
    let begun = Instant::now();
    let memory = Memory::new(2, move |seen| async move {
        let well = begun.elapsed() > Duration::from_secs(8);
        match (seen.port, seen.path.as_str()) {
            (1, _) if !well => respond(500, &[], "broken"),
            (_, "/health") => respond(204, &[], ""),
            _ => respond(200, &[], "ok"),
        }
    });
    let policy = EjectionPolicy::default().with_base_time(Duration::from_secs(2));
    let rules = Rules::new().with_health_path("/health");
    let channel = connected(memory.builder().ejection(policy).rules(rules)).await;
    for _ in 0..40 {
        answer(&channel, get("/orders")).await;
    }
    assert_eq!(ejected(&channel), 1);
    sleep(Duration::from_secs(30)).await;
    for _ in 0..10 {
        assert_eq!(answer(&channel, get("/orders")).await.0, 200);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ejected(&channel), 0);
    assert!(memory.seen().iter().any(|seen| seen.path == "/health"));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_ends_at_its_deadline_with_a_typed_error() {
    let memory = Memory::new(1, |_| pending());
    let channel = memory.channel().await;
    let ms = Duration::from_millis(70);
    for with_option in [true, false] {
        let begun = Instant::now();
        let mut request = post("/orders");
        if with_option {
            let option = CallOptions::new().with_timeout(ms);
            request.extensions_mut().insert(option);
        } else {
            request.extensions_mut().insert(Deadline::after(ms));
        }
        let error = send(&channel, request).await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::Deadline);
        assert_eq!(status_for(&error), StatusCode::GATEWAY_TIMEOUT);
        assert!(begun.elapsed().as_millis().abs_diff(70) <= 2);
    }
    let begun = Instant::now();
    let builder = memory.builder().retry_timeout(Duration::from_secs(2));
    let channel = connected(builder).await;
    send(&channel, post("/orders")).await.unwrap_err();
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_get_to_a_hung_instance_is_answered_by_another_one_and_the_hung_one_is_ejected() {
    let memory = Memory::new(3, |seen| async move {
        if seen.port == 1 {
            return pending().await;
        }
        respond(200, &[], "ok")
    });
    let channel = memory.channel().await;
    for _ in 0..60 {
        let response = send(&channel, get("/orders")).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(ejected(&channel), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_above_the_replay_limit_or_still_being_produced_is_sent_once() {
    let memory = first_fails(lost);
    let policy = RetryPolicy::default().with_replay_limit(3);
    let channel = connected(memory.builder().retry(policy)).await;
    let mut failed = 0;
    for _ in 0..3 {
        let put = request(Method::PUT, "/orders/1", "text");
        failed += usize::from(send(&channel, put).await.is_err());
    }
    assert_eq!(failed, 1);

    let memory = first_fails(lost);
    let channel = memory.channel().await;
    let mut failed = 0;
    for _ in 0..3 {
        let later = futures_util::stream::once(async {
            sleep(Duration::from_millis(5)).await;
            Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::from("late")))
        });
        let put = http::Request::put("/orders/1").body(StreamBody::new(later));
        let sent = channel.clone().oneshot(put.unwrap()).await;
        failed += usize::from(sent.is_err());
    }
    assert_eq!(failed, 1);
    assert!(memory.seen().iter().all(|seen| seen.body == "late"));
}

#[tokio::test(start_paused = true)]
async fn a_short_body_that_breaks_off_costs_no_get_and_a_long_one_is_an_error_in_the_body() {
    for (length, expected) in [("9", true), ("1000000", false)] {
        let memory = first_fails(move || {
            let parts = futures_util::stream::iter([
                Ok(http_body::Frame::data(bytes::Bytes::from("part"))),
                Err("connection reset".into()),
            ]);
            let body = StreamBody::new(parts).boxed_unsync();
            let response = http::Response::builder().header("content-length", length);
            Ok(response.body(body).unwrap())
        });
        let channel = memory.channel().await;
        let mut interrupted = 0;
        for _ in 0..3 {
            let response = send(&channel, get("/orders")).await.unwrap();
            if let Err(error) = response.into_body().collect().await {
                assert_eq!(error.kind, CallErrorKind::ResponseInterrupted);
                interrupted += 1;
            }
        }
        assert_eq!(interrupted, usize::from(!expected), "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_caller_holds_for_the_whole_body() {
    let memory = Memory::new(1, |_| async {
        let first = futures_util::stream::iter([Ok(http_body::Frame::data("part".into()))]);
        let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        Ok(http::Response::new(StreamBody::new(body).boxed_unsync()))
    });
    let channel = memory.channel().await;
    let mut request = get("/events");
    let deadline = Deadline::after(Duration::from_millis(300));
    request.extensions_mut().insert(deadline);
    let begun = Instant::now();
    let response = send(&channel, request).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(10));
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Deadline);
}
