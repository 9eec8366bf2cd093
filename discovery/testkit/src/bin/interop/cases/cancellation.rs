//! Calls that the client cancels, or that end at its deadline.
//!
//! A call is cancelled by tonic's handle, after which it ends with CANCELLED, or by dropping it, after
//! which there is no one to receive a status. In both cases the server must learn of it.

use std::{future::Future, pin::pin, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Request, Status};

use super::streaming::has_size;
use crate::{
    messages::{StreamingInputCallRequest, StreamingOutputCallResponse, stream_request},
    target::Target,
};

const INPUT: &str = "/grpc.testing.TestService/StreamingInputCall";
const DUPLEX: &str = "/grpc.testing.TestService/FullDuplexCall";
/// Time for the end of a call to be seen on this side.
const LIMIT: Duration = Duration::from_secs(30);
/// Calls that end at their deadline.
const TIMEOUTS: usize = 200;
/// The deadline of each.
const SHORT: Duration = Duration::from_millis(1);

pub(crate) async fn after_begin(target: &Target<'_>) -> Result<()> {
    let (_requests, receiver) = mpsc::channel::<StreamingInputCallRequest>(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    let handle = request.cancellation_handle();
    let server = Server::watch(target, INPUT);
    let mut client = target.client();
    let mut call = pin!(client.streaming_input_call(request));
    server.begins(call.as_mut()).await?;
    handle.cancel();
    let answer = timeout(LIMIT, call).await.context("the call goes on")?;
    is_cancelled(answer.err())?;
    server.learns_of_it().await
}

/// Our own case: the future of the call is dropped.
pub(crate) async fn after_begin_by_drop(target: &Target<'_>) -> Result<()> {
    let (requests, receiver) = mpsc::channel::<StreamingInputCallRequest>(1);
    let server = Server::watch(target, INPUT);
    {
        let mut client = target.client();
        let mut call = pin!(client.streaming_input_call(ReceiverStream::new(receiver)));
        server.begins(call.as_mut()).await?;
    }
    let closed = timeout(LIMIT, requests.closed()).await;
    closed.context("the request stream outlives its call")?;
    server.learns_of_it().await
}

pub(crate) async fn after_first_response(target: &Target<'_>) -> Result<()> {
    let (requests, receiver) = mpsc::channel(1);
    requests.send(stream_request(&[31_415], 27_182)).await?;
    let mut request = Request::new(ReceiverStream::new(receiver));
    let handle = request.cancellation_handle();
    let server = Server::watch(target, DUPLEX);
    let mut responses = first_response(target, request).await?;
    handle.cancel();
    let end = timeout(LIMIT, responses.message()).await;
    is_cancelled(end.context("the call goes on")?.err())?;
    server.learns_of_it().await
}

/// Our own case: the response is dropped while the request goes on.
pub(crate) async fn after_first_response_by_drop(target: &Target<'_>) -> Result<()> {
    let (requests, receiver) = mpsc::channel(1);
    requests.send(stream_request(&[31_415], 27_182)).await?;
    let server = Server::watch(target, DUPLEX);
    let request = Request::new(ReceiverStream::new(receiver));
    drop(first_response(target, request).await?);
    let closed = timeout(LIMIT, requests.closed()).await;
    closed.context("the request stream outlives its call")?;
    server.learns_of_it().await
}

pub(crate) async fn timeout_on_sleeping_server(target: &Target<'_>) -> Result<()> {
    for round in 0..TIMEOUTS {
        let (requests, receiver) = mpsc::channel(1);
        requests.send(stream_request(&[], 27_182)).await?;
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.set_timeout(SHORT);
        let mut client = target.client();
        let call = async {
            let mut responses = client.full_duplex_call(request).await?.into_inner();
            responses.message().await
        };
        let status = match timeout(LIMIT, call).await.context("the call goes on")? {
            Ok(response) => bail!("call {round}: an answer: {response:?}"),
            Err(status) => status,
        };
        ensure!(
            status.code() == Code::DeadlineExceeded,
            "call {round}: got {status:?}, expected DEADLINE_EXCEEDED"
        );
    }
    // The connections are as good as before.
    for _ in 0..target.count() {
        super::unary::large(target).await?;
    }
    Ok(())
}

/// The beginnings and cancellations of calls of a method, as its server sees them.
struct Server<'a> {
    target: &'a Target<'a>,
    begun: String,
    begun_before: usize,
    cancelled: String,
    cancelled_before: usize,
}

impl<'a> Server<'a> {
    fn watch(target: &'a Target<'a>, path: &str) -> Self {
        let (begun, cancelled) = (format!("begun {path}"), format!("cancelled {path}"));
        Self {
            begun_before: target.servers.lines(&begun),
            cancelled_before: target.servers.lines(&cancelled),
            target,
            begun,
            cancelled,
        }
    }

    /// Runs a call that has no end until the server has begun with it.
    async fn begins<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<()> {
        let begun = self.target.servers.another(&self.begun, self.begun_before);
        tokio::select! {
            begun = begun => begun,
            ended = call => match ended {
                Ok(_) => bail!("the call ended before its request"),
                Err(status) => Err(status.into()),
            },
        }
    }

    async fn learns_of_it(&self) -> Result<()> {
        let servers = self.target.servers;
        servers
            .another(&self.cancelled, self.cancelled_before)
            .await
    }
}

async fn first_response<S>(
    target: &Target<'_>,
    request: Request<S>,
) -> Result<tonic::Streaming<StreamingOutputCallResponse>>
where
    S: Stream<Item = crate::messages::StreamingOutputCallRequest> + Send + 'static,
{
    let mut client = target.client();
    let mut responses = client.full_duplex_call(request).await?.into_inner();
    has_size(responses.message().await?, 31_415)?;
    Ok(responses)
}

fn is_cancelled(status: Option<Status>) -> Result<()> {
    let status = status.context("an answer after the cancellation")?;
    ensure!(
        status.code() == Code::Cancelled,
        "got {status:?}, expected CANCELLED"
    );
    Ok(())
}
