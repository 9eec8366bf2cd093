//! The transport and h2's server side, connected by a pipe in memory.

use std::{future::poll_fn, time::Duration};

use bytes::BytesMut;
use futures_util::stream;
use h2::{
    Reason,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::{
    connection::{RequestBody, Transport},
    error::chain,
    grpc::LengthPrefixed,
    retry::replay::Replay,
};

type Server = server::Connection<DuplexStream, Bytes>;
type Accepted = (Request<h2::RecvStream>, SendResponse<Bytes>);

fn origin() -> Origin {
    Origin::of(Uri::from_static("http://127.0.0.1:1")).unwrap()
}

/// A connection whose driver runs, and its server.
async fn pair(http2: Http2) -> (Box<dyn Transport>, JoinHandle<Result<(), BoxError>>, Server) {
    let (client, server) = duplex(64 << 10);
    let origin = origin();
    let (connection, server) = tokio::join!(
        http2.establish(client, None, origin),
        server::handshake(server)
    );
    let Connection { transport, driver } = connection.unwrap();
    (transport, tokio::spawn(driver), server.unwrap())
}

/// The same with a server that takes one call at a time.
async fn pair_of_one_call() -> (Box<dyn Transport>, JoinHandle<Result<(), BoxError>>, Server) {
    let (client, server) = duplex(64 << 10);
    let http2 = Http2::default();
    let mut one = server::Builder::new();
    let (connection, server) = tokio::join!(
        http2.establish(client, None, origin()),
        one.max_concurrent_streams(1).handshake(server)
    );
    let Connection { transport, driver } = connection.unwrap();
    (transport, tokio::spawn(driver), server.unwrap())
}

/// Serves in the background and gives this answer to every request.
fn serve<F>(mut server: Server, answer: impl Fn(Accepted) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Some(accepted) = server.accept().await {
            tokio::spawn(answer(accepted.unwrap()));
        }
    });
}

fn request(body: RequestBody) -> Request<RequestBody> {
    Request::post("/pb.Trim/TrimSpace").body(body).unwrap()
}

fn whole(bytes: &'static [u8]) -> RequestBody {
    RequestBody::whole(Bytes::from_static(bytes))
}

/// A body of several parts, too large to be kept.
fn in_parts(part: usize, count: usize) -> RequestBody {
    let frames = (0..count).map(move |_| Ok::<_, BoxError>(Frame::data(vec![7; part].into())));
    let replay = Replay::read::<LengthPrefixed, _>(StreamBody::new(stream::iter(frames)), part);
    replay.attempt().unwrap()
}

/// A body whose second part never arrives.
fn endless() -> RequestBody {
    let first = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"first")))]);
    let body = StreamBody::new(futures_util::StreamExt::chain(first, stream::pending()));
    Replay::read::<LengthPrefixed, _>(body, 1024)
        .attempt()
        .unwrap()
}

async fn read_all(body: &mut h2::RecvStream) -> Result<Bytes, h2::Error> {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

async fn echo((request, mut respond): Accepted) {
    let (_, mut body) = request.into_parts();
    let all = read_all(&mut body).await.unwrap();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(all, false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn a_message_goes_there_and_back_with_its_trailers() {
    let (transport, _driver, server) = pair(Http2::default()).await;
    serve(server, echo);
    let response = transport.send(request(whole(b"message"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), "message");
}

#[tokio::test]
async fn bodies_larger_than_every_window_arrive_whole() {
    let (transport, _driver, server) = pair(Http2::default()).await;
    serve(server, echo);
    let response = transport.send(request(in_parts(100_000, 100))).await;
    let body = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), vec![7; 10_000_000]);
}

#[tokio::test]
async fn headers_of_one_hop_are_left_out_and_the_address_is_added() {
    let (transport, _driver, server) = pair(Http2::default()).await;
    serve(server, |(request, mut respond)| async move {
        let uri = request.uri().to_string();
        let left = ["connection", "keep-alive", "te"].map(|name| request.headers().get(name));
        let fine = uri == "http://127.0.0.1:1/pb.Trim/TrimSpace" && left == [None; 3];
        let status = if fine { 200 } else { 400 };
        let response = Response::builder().status(status).body(()).unwrap();
        respond.send_response(response, true).unwrap();
    });
    let mut request = request(whole(b"message"));
    for (name, value) in [("connection", "close"), ("keep-alive", "1"), ("te", "gzip")] {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
    }
    assert_eq!(transport.send(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_call_given_up_is_reset() {
    for body in [whole(b"message"), endless()] {
        let (transport, _driver, mut server) = pair(Http2::default()).await;
        let call = tokio::spawn(transport.send(request(body)));
        let (_request, mut respond) = server.accept().await.unwrap().unwrap();
        let driven = tokio::spawn(async move { while server.accept().await.is_some() {} });
        call.abort();
        let reason = poll_fn(|cx| respond.poll_reset(cx)).await;
        assert_eq!(reason.unwrap(), Reason::CANCEL);
        driven.abort();
    }
}

#[tokio::test]
async fn a_request_that_its_caller_ends_is_reset_as_cancelled() {
    let (transport, _driver, mut server) = pair(Http2::new()).await;
    let first = Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"first")));
    let body = StreamBody::new(stream::iter([first, Err("the caller's error".into())]));
    let replay = Replay::read::<LengthPrefixed, _>(body, 1024);
    let answer = tokio::spawn(transport.send(request(replay.attempt().unwrap())));
    let (_request, mut respond) = server.accept().await.unwrap().unwrap();
    let end = tokio::select! {
        end = poll_fn(|cx| respond.poll_reset(cx)) => end.unwrap(),
        _ = server.accept() => panic!("the connection ended"),
    };
    assert_eq!(end, Reason::CANCEL);
    assert!(answer.await.unwrap().is_err());
    let failure = chain(replay.one_shot().unwrap().failure().unwrap());
    assert_eq!(failure, "the request's body failed: the caller's error");
}

#[tokio::test]
async fn calls_wait_for_a_server_that_takes_one_at_a_time() {
    let (transport, _driver, server) = pair_of_one_call().await;
    serve(server, echo);
    let bodies = (0..20).map(|n| match n % 2 {
        0 => whole(b"message"),
        _ => in_parts(40_000, 10),
    });
    let calls: Vec<_> = bodies.map(|body| transport.send(request(body))).collect();
    for (n, call) in calls.into_iter().enumerate() {
        let body = call.await.unwrap().into_body().collect().await.unwrap();
        let length = if n % 2 == 0 { 7 } else { 400_000 };
        assert_eq!(body.to_bytes().len(), length);
    }
}

#[tokio::test]
async fn a_call_given_up_before_the_server_takes_it_is_reset() {
    let (transport, _driver, mut server) = pair_of_one_call().await;
    let first = transport.send(request(whole(b"message")));
    let accepted = server.accept().await.unwrap().unwrap();
    let waiting = transport.send(request(whole(b"message")));
    drop(waiting);
    drop((first, accepted));
    let (_request, mut respond) = server.accept().await.unwrap().unwrap();
    tokio::spawn(async move { while server.accept().await.is_some() {} });
    let reset = poll_fn(|cx| respond.poll_reset(cx)).await;
    assert_eq!(reset.unwrap(), Reason::CANCEL);
}

#[tokio::test]
async fn a_response_no_longer_read_ends_the_request() {
    let (transport, _driver, mut server) = pair(Http2::default()).await;
    let call = tokio::spawn(transport.send(request(endless())));
    let (request, mut respond) = server.accept().await.unwrap().unwrap();
    let _driven = tokio::spawn(async move { while server.accept().await.is_some() {} });
    let _stream = respond.send_response(Response::new(()), false).unwrap();
    let response = call.await.unwrap().unwrap();
    let mut body = request.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "first");
    drop(response);
    let error = body.data().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
}

#[tokio::test]
async fn a_refused_stream_was_never_processed_and_another_reset_may_have_been() {
    for (reason, never_processed) in [
        (Reason::REFUSED_STREAM, true),
        (Reason::INTERNAL_ERROR, false),
    ] {
        let (transport, _driver, server) = pair(Http2::default()).await;
        serve(server, move |(_, mut respond)| async move {
            respond.send_reset(reason);
        });
        let error = transport
            .send(request(whole(b"message")))
            .await
            .unwrap_err();
        assert_eq!(error.never_processed, never_processed, "{reason}");
        assert!(!transport.is_closed());
    }
}

#[tokio::test]
async fn a_server_that_goes_away_finishes_what_it_has_and_takes_nothing_new() {
    let (transport, driver, mut server) = pair(Http2::default()).await;
    let call = tokio::spawn(transport.send(request(whole(b"message"))));
    let (_request, mut respond) = server.accept().await.unwrap().unwrap();
    server.graceful_shutdown();
    let serving = tokio::spawn(async move { while server.accept().await.is_some() {} });
    // No new call can start, which is known without an attempt.
    driver.await.unwrap().unwrap();
    assert!(transport.is_closed());
    let error = transport.send(request(whole(b"late"))).await.unwrap_err();
    assert!(error.never_processed, "{error}");
    // The call before it is still answered.
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_dropped_transport_closes_the_connection_after_the_last_call() {
    let (transport, driver, mut server) = pair(Http2::default()).await;
    let call = tokio::spawn(transport.send(request(whole(b"message"))));
    let (_request, mut respond) = server.accept().await.unwrap().unwrap();
    let serving = tokio::spawn(async move { while server.accept().await.is_some() {} });
    drop(transport);
    assert!(!driver.is_finished());
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    driver.await.unwrap().unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_broken_connection_ends_the_driver_and_the_calls() {
    let (transport, driver, mut server) = pair(Http2::default()).await;
    let call = tokio::spawn(transport.send(request(whole(b"message"))));
    let accepted = server.accept().await;
    drop((accepted, server));
    let error = call.await.unwrap().unwrap_err();
    assert!(!error.never_processed, "{error}");
    // A server that closes in order is not an error of the connection.
    let _orderly = driver.await.unwrap();
    assert!(transport.is_closed());
}

#[test]
fn a_transport_whose_runtime_ended_is_closed() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (transport, _driver, _server) = runtime.block_on(pair(Http2::default()));
    assert!(!transport.is_closed());
    drop(runtime);
    assert!(transport.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_kept_for_as_long_as_it_answers_pings() {
    let second = Duration::from_secs(1);
    let http2 = Http2::new().with_keep_alive(10 * second, 3 * second);
    let (transport, driver, mut server) = pair(http2).await;
    let serving = tokio::spawn(async move { while server.accept().await.is_some() {} });
    tokio::time::sleep(100 * second).await;
    assert!(!driver.is_finished() && !transport.is_closed());
    serving.abort();
    let _ended = driver.await.unwrap();
    assert!(transport.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_hung_server_is_found_by_the_ping() {
    let second = Duration::from_secs(1);
    let http2 = Http2::new().with_keep_alive(10 * second, 3 * second);
    let (transport, driver, _hung) = pair(http2).await;
    let started = Instant::now();
    let call = tokio::spawn(transport.send(request(whole(b"message"))));
    let error = driver.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("no answer to a ping"), "{error}");
    let taken = started.elapsed();
    assert!(taken >= 12 * second && taken <= 14 * second, "{taken:?}");
    assert!(!call.await.unwrap().unwrap_err().never_processed);
}

#[tokio::test]
async fn another_protocol_is_no_connection() {
    let (client, mut server) = duplex(1024);
    server
        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .unwrap();
    let connection = Http2::default().establish(client, None, origin()).await;
    assert!(matches!(connection, Err(ConnectError::Handshake(_))));
}

#[tokio::test]
async fn an_answer_is_known_even_if_the_connection_has_ended_with_it() {
    let (transport, driver, mut server) = pair(Http2::default()).await;
    assert!(!transport.has_answered());
    let call = transport.send(request(whole(b"message")));
    let (_request, mut respond) = server.accept().await.unwrap().unwrap();
    respond.send_response(Response::new(()), true).unwrap();
    server.graceful_shutdown();
    tokio::spawn(async move { while server.accept().await.is_some() {} });
    // The call has not run since it was sent.
    driver.await.unwrap().unwrap();
    assert!(transport.has_answered());
    assert_eq!(call.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_after_it_went_away_is_found_by_the_ping() {
    let second = Duration::from_secs(1);
    let http2 = Http2::new().with_keep_alive(10 * second, 3 * second);
    let (transport, driver, mut server) = pair(http2).await;
    let call = tokio::spawn(transport.send(request(whole(b"message"))));
    let _accepted = server.accept().await.unwrap().unwrap();
    server.graceful_shutdown();
    let (hang, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        tokio::select! {
            () = async { while server.accept().await.is_some() {} } => {}
            _ = stopped => {}
        }
        server
    });
    driver.await.unwrap().unwrap();
    hang.send(()).unwrap();
    let _hung = serving.await.unwrap();
    let ended = tokio::time::timeout(60 * second, call).await;
    assert!(ended.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn of_several_addresses_the_first_to_answer_is_used() {
    let listen = || tokio::net::TcpListener::bind("127.0.0.1:0");
    // The kernel accepts connections to the first; no process answers.
    let (silent, answering) = (listen().await.unwrap(), listen().await.unwrap());
    let addresses = [&silent, &answering].map(|listener| listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = answering.accept().await.unwrap();
        let mut server = server::handshake(stream).await.unwrap();
        while server.accept().await.is_some() {}
    });
    let http2 = Http2::default();
    let instance = Instance::new("trim.example", 1).unwrap();
    let connection = http2.to_any(addresses.to_vec(), &instance, &http2).await;
    assert!(connection.is_ok());
}
