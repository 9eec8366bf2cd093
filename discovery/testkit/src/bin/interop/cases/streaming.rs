//! Streams in either direction and in both.

use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    messages::{
        REQUEST_SIZES, RESPONSE_SIZES, StreamingInputCallRequest, StreamingOutputCallRequest,
        StreamingOutputCallResponse, payload, size, stream_request,
    },
    target::Target,
};

pub(crate) async fn client_streaming(target: &Target<'_>) -> Result<()> {
    let requests = REQUEST_SIZES.map(|size| StreamingInputCallRequest {
        payload: payload(size),
        expect_compressed: None,
    });
    // One at a time: the request is not complete when the call starts.
    let (sender, receiver) = mpsc::channel(1);
    let send = async {
        for request in requests {
            sender.send(request).await?;
        }
        drop(sender);
        Ok::<_, anyhow::Error>(())
    };
    let mut client = target.client();
    let call = client.streaming_input_call(ReceiverStream::new(receiver));
    let (delivered, response) = tokio::join!(send, call);
    let total = response?.get_ref().aggregated_payload_size;
    delivered?;
    ensure!(total == 74_922, "{total} bytes, expected 74922");
    Ok(())
}

pub(crate) async fn server_streaming(target: &Target<'_>) -> Result<()> {
    let request = stream_request(&RESPONSE_SIZES, 0);
    let mut client = target.client();
    let mut responses = client.streaming_output_call(request).await?.into_inner();
    for expected in RESPONSE_SIZES {
        has_size(responses.message().await?, expected)?;
    }
    ends(responses.message().await?.as_ref())
}

pub(crate) async fn ping_pong(target: &Target<'_>) -> Result<()> {
    let (requests, receiver) = mpsc::channel(1);
    let mut steps = REQUEST_SIZES.into_iter().zip(RESPONSE_SIZES);
    let mut next = steps.next();
    // A server may send its headers with its first message only.
    if let Some((request, response)) = next {
        requests.send(stream_request(&[response], request)).await?;
    }
    let mut client = target.client();
    let responses = client.full_duplex_call(ReceiverStream::new(receiver));
    let mut responses = responses.await?.into_inner();
    while let Some((_, expected)) = next {
        has_size(responses.message().await?, expected)?;
        next = steps.next();
        if let Some((request, response)) = next {
            requests.send(stream_request(&[response], request)).await?;
        }
    }
    drop(requests);
    ends(responses.message().await?.as_ref())
}

pub(crate) async fn empty_stream(target: &Target<'_>) -> Result<()> {
    let requests = tokio_stream::empty::<StreamingOutputCallRequest>();
    let mut client = target.client();
    let mut responses = client.full_duplex_call(requests).await?.into_inner();
    ends(responses.message().await?.as_ref())
}

/// Checks the size of a response of a stream.
pub(crate) fn has_size(response: Option<StreamingOutputCallResponse>, expected: i32) -> Result<()> {
    let response = response.context("the stream ended early")?;
    let size = size(response.payload.as_ref());
    ensure!(
        size == usize::try_from(expected)?,
        "{size} bytes, expected {expected}"
    );
    Ok(())
}

fn ends(response: Option<&StreamingOutputCallResponse>) -> Result<()> {
    ensure!(response.is_none(), "a response too many");
    Ok(())
}
