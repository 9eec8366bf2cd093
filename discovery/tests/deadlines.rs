//! The caller's deadline against servers that keep it too, and the ends of streams. Servers are
//! scripts in memory on a paused clock, so that they answer at an exact time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use discovery::{
    BoxError, CallError, CallErrorKind, Channel, EjectionPolicy, Instance,
    connection::{SendError, TransportBody},
    registry::StaticRegistry,
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use proto::{TrimRequest, trim_client::TrimClient};
use support::{
    memory::Memory,
    scripted::{Answer, Scripted},
};
use tokio::time::sleep;
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

/// A message of length zero: every field has its default.
const EMPTY_MESSAGE: &[u8] = &[0; 5];
/// The deadline of the callers.
const GIVEN: Duration = Duration::from_millis(300);
/// Just before the deadline, as a server sees it whose timer is a little early.
const AT_DEADLINE: Duration = Duration::from_millis(299);
/// Long before it.
const EARLY: Duration = Duration::from_millis(100);

/// A channel to one server with this script.
async fn channel<F: Future<Output = Answer> + Send + 'static>(
    script: impl Fn() -> F + Send + Sync + 'static,
) -> Channel {
    let channel = Channel::from_registry(Scripted::registry(1), "trim_service")
        .factory(Scripted::new(move |_| script()))
        .retry_max(1)
        .build()
        .unwrap();
    channel.ready().await;
    channel
}

/// The end of a response: trailers, an error, or none.
type End = Option<Result<HeaderMap, BoxError>>;

/// A message, then after `delay` the end: trailers, an error, or nothing.
fn message_then(delay: Duration, end: End) -> Response<TransportBody> {
    let end = stream::once(async move {
        sleep(delay).await;
        end.map(|end| end.map(Frame::trailers))
    });
    let end = end.filter_map(std::future::ready);
    let message: Result<_, BoxError> = Ok(Frame::data(Bytes::from_static(EMPTY_MESSAGE)));
    let body = StreamBody::new(stream::iter([message]).chain(end)).boxed_unsync();
    let mut response = Response::new(body);
    let content_type = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", content_type);
    response
}

fn trailers(code: Code) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), (code as i32).into())])
}

async fn trim(channel: Channel, given: Duration) -> Result<(), Status> {
    let mut request = Request::new(TrimRequest { s: "x".into() });
    request.set_timeout(given);
    let answer = TrimClient::new(channel).trim_space(request).await;
    answer.map(drop)
}

/// The first message of a stream, and what follows it.
async fn watch(
    channel: Channel,
    given: Option<Duration>,
) -> Result<Option<HealthCheckResponse>, Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(given) = given {
        request.set_timeout(given);
    }
    let mut updates = HealthClient::new(channel)
        .watch(request)
        .await?
        .into_inner();
    assert!(updates.message().await?.is_some());
    updates.message().await
}

fn kind(status: &Status) -> Option<CallErrorKind> {
    CallError::of(status).map(|error| error.kind)
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_server_ends_at_the_callers_deadline_has_exceeded_it() {
    let reset = || Err(SendError::new("stream reset: CANCEL"));
    let cancelled = || Ok(Status::cancelled("Timeout expired").into_http());
    let exceeded = || Ok(Status::deadline_exceeded("timer").into_http());
    for (answer, code_before) in [
        (reset as fn() -> Answer, Code::Unavailable),
        (cancelled, Code::Cancelled),
        (exceeded, Code::DeadlineExceeded),
    ] {
        let after = |delay| {
            channel(move || async move {
                sleep(delay).await;
                answer()
            })
        };
        let status = trim(after(AT_DEADLINE).await, GIVEN).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert_eq!(kind(&status), Some(CallErrorKind::Deadline), "{status}");
        // Before the deadline it is the server's own answer.
        let status = trim(after(EARLY).await, GIVEN).await.unwrap_err();
        assert_eq!(status.code(), code_before, "{status}");
        assert_ne!(kind(&status), Some(CallErrorKind::Deadline), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_a_server_ends_at_the_callers_deadline_has_exceeded_it() {
    let ends: [fn() -> End; 4] = [
        || None,
        || Some(Err("stream reset: CANCEL".into())),
        || Some(Ok(trailers(Code::Cancelled))),
        || Some(Ok(trailers(Code::DeadlineExceeded))),
    ];
    for end in ends {
        let server = channel(move || async move { Ok(message_then(AT_DEADLINE, end())) }).await;
        let status = watch(server, Some(GIVEN)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert_eq!(kind(&status), Some(CallErrorKind::Deadline), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_trailers_has_no_clean_end() {
    for given in [None, Some(GIVEN)] {
        let server = channel(|| async { Ok(message_then(EARLY, None)) }).await;
        let status = watch(server, given).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let expected = Some(CallErrorKind::ResponseInterrupted);
        assert_eq!(kind(&status), expected, "{status}");
    }
    let server = channel(|| async { Ok(message_then(EARLY, Some(Ok(trailers(Code::Ok))))) }).await;
    assert_eq!(watch(server, None).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_unary_answer_without_trailers_is_no_answer() {
    for delay in [Duration::ZERO, EARLY] {
        let server = channel(move || async move { Ok(message_then(delay, None)) }).await;
        let status = trim(server, GIVEN).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("without a status"), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_the_default_timeout() {
    let hour = Duration::from_secs(3_600);
    let end = || Some(Ok(trailers(Code::Ok)));
    let server = channel(move || async move { Ok(message_then(hour, end())) }).await;
    assert_eq!(watch(server, None).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_not_ejected_for_callers_in_a_hurry() {
    let memory = Memory::with_servers(2);
    for server in memory.servers() {
        server.behave(|_| async {
            sleep(Duration::from_millis(15)).await;
            Ok(())
        });
    }
    let channel = Channel::from_registry(Arc::new(memory.registry()), "trim_service")
        .factory(memory.clone())
        .ejection(EjectionPolicy::default())
        .build()
        .unwrap();
    channel.wait_for(|status| status.ready == 2).await.unwrap();
    for nth in 0..400 {
        // Calls in a hurry all go to one of the two, and ordinary ones to the other.
        let (given, answered) = if nth % 2 == 0 {
            (5, false)
        } else {
            (500, true)
        };
        let answer = trim(channel.clone(), Duration::from_millis(given)).await;
        assert_eq!(answer.is_ok(), answered, "{answer:?}");
        assert!(channel.endpoints().iter().all(|endpoint| !endpoint.ejected));
    }
}

#[tokio::test]
async fn a_stream_reset_with_cancel_has_no_clean_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut bodies = Vec::new();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let response = Response::builder().header("content-type", "application/grpc");
            let response = response.body(()).unwrap();
            let mut body = respond.send_response(response, false).unwrap();
            body.send_data(Bytes::from_static(EMPTY_MESSAGE), false)
                .unwrap();
            bodies.push(body);
            // The second request of the client resets the first one's response.
            if bodies.len() == 2 {
                bodies[0].send_reset(h2::Reason::CANCEL);
            }
        }
    });
    let registry = StaticRegistry::new(Instance::new("127.0.0.1", port));
    let channel = Channel::from_registry(Arc::new(registry), "health")
        .build()
        .unwrap();
    let mut client = HealthClient::new(channel);
    let mut watch = async || {
        let request = HealthCheckRequest::default();
        let mut updates = client.watch(request).await.unwrap().into_inner();
        assert!(updates.message().await.unwrap().is_some());
        updates
    };
    let mut first = watch().await;
    let _second = watch().await;
    let status = first.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("without a status"), "{status}");
}
