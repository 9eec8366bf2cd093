//! Calls over one HTTP/2 connection, each a stream of its own.
//!
//! Straight on h2: hyper would add a queue, a channel and a task for every call, which at this
//! message size is a good part of what a call costs.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
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
use http::{
    HeaderMap, HeaderName, Request, Response, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use super::body_sender::BodySender;
use crate::{
    BoxError,
    connection::RequestBody,
    connection::{SendError, Transport, TransportBody},
};

pub(super) struct Http2Transport {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) closed: Arc<AtomicBool>,
    /// Tells the driver that the transport was dropped.
    pub(super) _open: oneshot::Sender<Infallible>,
}

impl Transport for Http2Transport {
    fn send(
        &self,
        request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        let begun = self.begin(request);
        let closed = Arc::clone(&self.closed);
        Box::pin(async move {
            let (response, sender) = begun?;
            match response.await {
                Ok(response) => {
                    Ok(response.map(|stream| Incoming { stream, sender }.boxed_unsync()))
                }
                Err(error) => {
                    let refusal = Refusal::of(&error);
                    if refusal == Some(Refusal::GoAway) {
                        // Told before the driver is, so that the next pick knows.
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

    fn capacity(&self) -> usize {
        self.sender.current_max_send_streams()
    }
}

impl Http2Transport {
    /// Hands the request to the connection. Dropping the response resets the stream.
    fn begin(
        &self,
        request: Request<RequestBody>,
    ) -> Result<(ResponseFuture, Option<BodySender>), SendError> {
        let (mut head, body) = request.into_parts();
        self.address(&mut head.uri);
        strip(&mut head.headers);
        let mut sender = self.sender.clone();
        // A handle that has begun no call yet never has to wait.
        let ready = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(Err(error)) = ready {
            self.closed.store(true, Ordering::Relaxed);
            return Err(SendError::unprocessed(error));
        }
        let (response, mut stream) = sender
            .send_request(Request::from_parts(head, ()), body.is_end_stream())
            .map_err(|error| {
                if error.is_io() || error.is_go_away() {
                    SendError::unprocessed(error)
                } else {
                    SendError::new(error)
                }
            })?;
        let sender = match body.into_whole() {
            Ok(message) => {
                if !message.is_empty() {
                    // Where the stream is broken already, its response says why.
                    let _sent = stream.send_data(message, true);
                }
                None
            }
            Err(body) => Some(BodySender::start(body, stream)),
        };
        Ok((response, sender))
    }

    /// HTTP/2 sends the whole URI, of which a call brings the path.
    fn address(&self, uri: &mut Uri) {
        let path = uri.path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        // All three are there and well-formed, which is all that `from_parts` asks for.
        if let Ok(whole) = Uri::from_parts(parts) {
            *uri = whole;
        }
    }
}

/// What belongs to one hop of HTTP/1 and would be an error in HTTP/2 (RFC 9113, 8.2.2).
static HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

fn strip(headers: &mut HeaderMap) {
    // Nearly always there is none, which one look at the names tells.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

/// The ways in which HTTP/2 says that a request was not processed (RFC 9113, 6.8 and 8.7).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The server is going away and the stream is one it did not take.
    GoAway,
    /// `REFUSED_STREAM`.
    Stream,
}

impl Refusal {
    fn of(error: &h2::Error) -> Option<Self> {
        // h2 gives this error only to streams above the last one the server names.
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
    /// Sends the rest of the request for as long as somebody reads the response.
    sender: Option<BodySender>,
}

impl Incoming {
    fn end(&mut self, error: h2::Error) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.sender = None;
        // How a server says that it needs no more of the request, after all of its answer.
        let enough = matches!(
            error.reason(),
            Some(h2::Reason::NO_ERROR | h2::Reason::CANCEL)
        );
        (!enough).then(|| Err(error.into()))
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
                // Only a stream that is over takes no capacity back, and needs none.
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
