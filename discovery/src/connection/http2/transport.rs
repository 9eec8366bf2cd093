//! Calls over one HTTP/2 connection, each on a stream of its own.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::{
    RecvStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use super::{body_sender::BodySender, preface::Received};
use crate::{
    BoxError,
    connection::{RequestBody, SendError, Transport, TransportBody, origin::Origin},
};

pub(super) struct Http2Transport {
    /// The handle that starts streams. To clone it for each takes more locks.
    pub(super) sender: Mutex<SendRequest<Bytes>>,
    pub(super) origin: Origin,
    pub(super) closed: Arc<AtomicBool>,
    pub(super) received: Arc<Received>,
    /// Closes when the transport is dropped, which the driver awaits.
    pub(super) _open: oneshot::Sender<Infallible>,
}

impl Transport for Http2Transport {
    fn send(
        &self,
        request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        let started = self.start(request);
        let closed = Arc::clone(&self.closed);
        Box::pin(async move {
            let (response, sender) = started?;
            match response.await {
                Ok(response) => {
                    Ok(response.map(|stream| Incoming { stream, sender }.boxed_unsync()))
                }
                Err(error) => {
                    let refusal = Refusal::of(&error);
                    if refusal == Some(Refusal::GoAway) {
                        // The next pick must see it, even if the driver has not run yet.
                        closed.store(true, Ordering::Relaxed);
                    }
                    Err(match refusal {
                        Some(_) => SendError::unprocessed(error),
                        None => SendError::new(error),
                    })
                }
            }
        })
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn has_answered(&self) -> bool {
        self.received.answer.load(Ordering::Relaxed)
    }

    fn capacity(&self) -> usize {
        self.sender().current_max_send_streams()
    }
}

impl Http2Transport {
    fn sender(&self) -> MutexGuard<'_, SendRequest<Bytes>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the request on the connection. Dropping the response future resets the stream.
    fn start(
        &self,
        request: Request<RequestBody>,
    ) -> Result<(ResponseFuture, Option<BodySender>), SendError> {
        let (mut head, body) = request.into_parts();
        self.origin.complete(&mut head.uri);
        strip(&mut head.headers);
        let mut sender = self.sender();
        let mut cx = Context::from_waker(Waker::noop());
        let started = sender.send_request(Request::from_parts(head, ()), body.is_end_stream());
        let (response, mut stream) = started.map_err(|error| {
            if let Poll::Ready(Err(error)) = sender.poll_ready(&mut cx) {
                self.closed.store(true, Ordering::Relaxed);
                return SendError::unprocessed(error);
            }
            // The connection takes others: it is the request.
            SendError::new(error)
        })?;
        if sender.poll_ready(&mut cx).is_pending() {
            // While the server takes no more streams, a handle keeps its last one, even if the call is
            // given up, and starts no other. A new handle does.
            *sender = sender.clone();
        }
        drop(sender);
        let body_sender = match body.into_whole() {
            Ok(message) => {
                if !message.is_empty() {
                    // If the stream has failed, its response has the reason.
                    let _sent = stream.send_data(message, true);
                }
                None
            }
            Err(body) => Some(BodySender::start(body, stream)),
        };
        Ok((response, body_sender))
    }
}

/// HTTP/1 headers that make an HTTP/2 request malformed (RFC 9113, 8.2.2).
static HOP_BY_HOP: [&str; 5] = [
    "connection",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "proxy-connection",
];

fn strip(headers: &mut HeaderMap) {
    // Most requests have none of them: one pass over the names is cheaper than six lookups.
    let mut all = headers.iter();
    let is_malformed = all.any(|(name, value)| match name.as_str() {
        "te" => value != "trailers",
        name => HOP_BY_HOP.contains(&name),
    });
    if !is_malformed {
        return;
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

/// A peer's statement that it did not process a request (RFC 9113, 6.8 and 8.7).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// `GOAWAY` with a last stream below this one.
    GoAway,
    /// `REFUSED_STREAM`.
    Stream,
}

impl Refusal {
    fn of(error: &h2::Error) -> Option<Self> {
        // h2 gives this error only to streams above the last one in the frame.
        if error.is_go_away() && error.is_remote() {
            return Some(Self::GoAway);
        }
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        refused.then_some(Self::Stream)
    }
}

/// A response's body.
struct Incoming {
    stream: RecvStream,
    /// Sends the rest of the request until the response is dropped.
    sender: Option<BodySender>,
}

impl Incoming {
    fn end(&mut self, error: h2::Error) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.sender = None;
        // After a complete answer a server resets the stream to stop the request (RFC 9113, 8.1).
        let complete = matches!(
            error.reason(),
            Some(h2::Reason::NO_ERROR | h2::Reason::CANCEL)
        );
        (!complete).then(|| Err(error.into()))
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // This fails only on a stream that has ended, which needs no capacity.
                let _released = self.stream.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Err(error)) => return Poll::Ready(self.end(error)),
            None => {}
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => self.end(error),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
