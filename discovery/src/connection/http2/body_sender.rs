//! Sends a request body that is not complete when the call starts, as fast as flow control allows.

use std::{
    error::Error,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body as _, Frame};
use tokio::task::AbortHandle;

use crate::{BoxError, connection::RequestBody, error::sources};

/// A task that sends the body. Dropping this ends the task, and resets the stream if the body was
/// not sent completely.
pub(super) struct BodySender(AbortHandle);

impl BodySender {
    pub(super) fn start(body: RequestBody, stream: SendStream<Bytes>) -> Self {
        Self(tokio::spawn(sender(body, stream)).abort_handle())
    }
}

impl Drop for BodySender {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn sender(mut body: RequestBody, mut stream: SendStream<Bytes>) {
    // If sending fails, the stream has ended, and its response has the reason.
    loop {
        match poll_fn(|cx| next(&mut body, &mut stream, cx)).await {
            Next::Frame(frame) => match frame.into_data() {
                Ok(data) => {
                    if !send(data, &mut stream).await {
                        return;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _sent = stream.send_trailers(trailers);
                        return;
                    }
                }
            },
            Next::End => {
                let _sent = stream.send_data(Bytes::new(), true);
                return;
            }
            Next::Failed(error) => {
                // Without a reset the server would take the part for the whole.
                stream.send_reset(reason(&*error));
                return;
            }
            Next::Reset => return,
        }
    }
}

enum Next {
    Frame(Frame<Bytes>),
    End,
    /// The caller's own body failed.
    Failed(BoxError),
    /// The server reset the stream.
    Reset,
}

fn next(
    body: &mut RequestBody,
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    if stream.poll_reset(cx).is_ready() {
        return Poll::Ready(Next::Reset);
    }
    Pin::new(body).poll_frame(cx).map(|frame| match frame {
        Some(Ok(frame)) => Next::Frame(frame),
        Some(Err(error)) => Next::Failed(error),
        None => Next::End,
    })
}

/// The code of the reset after the failure of a body: the one in the error, as hyper reads it, or CANCEL,
/// by which a gRPC client ends a call of its own accord.
fn reason(error: &(dyn Error + 'static)) -> Reason {
    sources(error)
        .find_map(|error| error.downcast_ref::<h2::Error>()?.reason())
        .unwrap_or(Reason::CANCEL)
}

/// Sends `data` in parts as large as flow control allows; false if the stream has ended.
async fn send(mut data: Bytes, stream: &mut SendStream<Bytes>) -> bool {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = poll_fn(|cx| capacity(stream, cx)).await;
        if granted == 0 {
            return false;
        }
        let part = data.split_to(granted.min(data.len()));
        if stream.send_data(part, false).is_err() {
            return false;
        }
    }
    true
}

/// The number of bytes that may be sent now; 0 if the stream has ended.
fn capacity(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<usize> {
    loop {
        if stream.capacity() > 0 {
            return Poll::Ready(stream.capacity());
        }
        match ready!(stream.poll_capacity(cx)) {
            // The capacity that this reports may be used up already: poll again.
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(0),
        }
    }
}
