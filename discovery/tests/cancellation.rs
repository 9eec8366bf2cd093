//! Calls that their caller ends: by tonic's handle, or by a deadline while the request is unfinished.
//! Neither says anything about the instance.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    future::{pending, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use discovery::{CallError, CallErrorKind, Channel, Instance, registry::StaticRegistry};
use futures_util::{Stream, stream};
use h2::Reason;
use http::uri::PathAndQuery;
use proto::{TrimRequest, TrimResponse, codec::ServerCodec};
use support::scripted::Scripted;
use testkit::grpc_message;
use tokio::{net::TcpListener, sync::mpsc};
use tonic::{Code, Request, Response, Status, Streaming, client::Grpc};

const PATH: PathAndQuery = PathAndQuery::from_static("/test.Test/Stream");
/// A message of length zero.
const EMPTY_MESSAGE: &[u8] = &[0; 5];
/// More calls than eject an instance.
const CALLS: usize = 10;

/// A server that answers with a message, or not at all, and gives the resets of its streams.
async fn server(answers: bool) -> (Instance, mpsc::UnboundedReceiver<Reason>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (resets, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let resets = resets.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    let resets = resets.clone();
                    tokio::spawn(async move {
                        let reset = if answers {
                            let response = http::Response::builder()
                                .header("content-type", "application/grpc")
                                .body(())
                                .unwrap();
                            let mut body = respond.send_response(response, false).unwrap();
                            let message = Bytes::from_static(EMPTY_MESSAGE);
                            body.send_data(message, false).unwrap();
                            poll_fn(|cx| body.poll_reset(cx)).await
                        } else {
                            poll_fn(|cx| respond.poll_reset(cx)).await
                        };
                        resets.send(reset.unwrap()).unwrap();
                    });
                }
            });
        }
    });
    (Instance::new("127.0.0.1", port).unwrap(), received)
}

async fn call<S>(
    channel: &Channel,
    request: Request<S>,
) -> Result<Response<Streaming<TrimResponse>>, Status>
where
    S: Stream<Item = TrimRequest> + Send + 'static,
{
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = ServerCodec::<TrimRequest, TrimResponse>::default();
    client.streaming(request, PATH, codec).await
}

fn is_cancelled(status: &Status) {
    assert_eq!(status.code(), Code::Cancelled, "{status}");
    let kind = CallError::of(status).map(|error| error.kind);
    assert_eq!(kind, Some(CallErrorKind::RequestFailed), "{status}");
}

fn assert_none_is_ejected(channel: &Channel) {
    for endpoint in channel.endpoints() {
        assert!(!endpoint.ejected, "{} was ejected", endpoint.instance);
    }
}

#[tokio::test]
async fn a_call_that_its_caller_cancels_is_cancelled_and_no_failure_of_the_instance() {
    for answers in [false, true] {
        let (first, mut resets) = server(answers).await;
        let (second, mut others) = server(answers).await;
        let registry = Arc::new(StaticRegistry::new([first, second]));
        let channel = Channel::from_registry(registry, "test").build().unwrap();
        support::eventually(|| channel.status().ready == 2).await;
        for _ in 0..CALLS {
            let mut request = Request::new(stream::pending());
            let handle = request.cancellation_handle();
            if answers {
                let mut responses = call(&channel, request).await.unwrap().into_inner();
                responses.message().await.unwrap().unwrap();
                handle.cancel();
                is_cancelled(&responses.message().await.unwrap_err());
            } else {
                // Cancelled while it waits for the answer, or before it is sent.
                let cancel = async { handle.cancel() };
                let (answer, ()) = tokio::join!(call(&channel, request), cancel);
                is_cancelled(&answer.unwrap_err());
            }
            let reset = tokio::select! {
                Some(reset) = resets.recv() => reset,
                Some(reset) = others.recv() => reset,
            };
            assert_eq!(reset, Reason::CANCEL);
        }
        assert_none_is_ejected(&channel);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_says_nothing_about_a_server_that_may_wait_for_the_request() {
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = Arc::clone(&silent);
    let factory = Scripted::new(move |_| {
        let is_silent = is_silent.load(Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if is_silent {
                pending::<()>().await;
            }
            Ok(grpc_message(EMPTY_MESSAGE))
        }
    });
    let channel = Channel::from_registry(Scripted::registry(2), "test")
        .factory(factory)
        .build()
        .unwrap();
    channel.wait_for(|status| status.ready == 2).await.unwrap();
    // The method usually takes a millisecond.
    for _ in 0..CALLS {
        call(&channel, Request::new(stream::pending()))
            .await
            .unwrap();
    }
    silent.store(true, Ordering::SeqCst);
    let deadline = Duration::from_millis(100);
    for _ in 0..CALLS {
        let mut request = Request::new(stream::pending());
        request.set_timeout(deadline);
        let status = call(&channel, request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    assert_none_is_ejected(&channel);
    // A whole request is owed an answer.
    for _ in 0..CALLS {
        let mut request = Request::new(stream::iter([TrimRequest::default()]));
        request.set_timeout(deadline);
        let status = call(&channel, request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    let ejected = || channel.endpoints().iter().any(|endpoint| endpoint.ejected);
    support::eventually(ejected).await;
}
