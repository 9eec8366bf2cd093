//! The response's body, as the caller reads it. It notes how the call ends for the endpoint's record
//! and enforces the caller's deadline up to the last frame.

use std::{
    collections::VecDeque,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::tracker::Tracker;
use crate::{
    code::Code,
    connection::TransportBody,
    ejection::Classification,
    error::chain,
    protocol::Protocol,
    retry::{CallError, CallErrorKind},
};

/// The body of a response. The default is an empty body, which interceptors need.
#[derive(Default)]
pub struct ResponseBody {
    /// Frames read before the response was handed out.
    read: VecDeque<Frame<Bytes>>,
    rest: Option<TransportBody>,
    /// The attempt's bookkeeping, and how its protocol reads trailers.
    tracker: Option<(Tracker, Classify)>,
    deadline: Option<Pin<Box<Sleep>>>,
}

type Classify = fn(&HeaderMap) -> Classification;

impl ResponseBody {
    /// A body that was read to its end.
    pub(super) fn whole(read: VecDeque<Frame<Bytes>>) -> Self {
        Self {
            read,
            ..Self::default()
        }
    }

    /// A body that is still being received and must end by the caller's deadline.
    pub(super) fn open<P: Protocol>(
        read: VecDeque<Frame<Bytes>>,
        rest: TransportBody,
        tracker: Tracker,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            read,
            rest: Some(rest),
            tracker: Some((tracker, |trailers| P::classify(P::trailers(trailers)))),
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
        }
    }

    fn settle(&mut self, classification: Classification) {
        self.rest = None;
        if let Some((tracker, _)) = self.tracker.take() {
            tracker.settle(classification);
        }
    }

    fn instance(&self) -> String {
        self.tracker
            .as_ref()
            .map_or_else(String::new, |(tracker, _)| {
                tracker.endpoint().instance().to_string()
            })
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResponseBody")
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        match Pin::new(rest).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref()
                    && let Some((_, classify)) = &self.tracker
                {
                    let classification = classify(trailers);
                    self.settle(classification);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = format!(
                    "{} ended the connection within its response: {}",
                    self.instance(),
                    chain(&*error)
                );
                self.settle(Classification::Transport);
                let error = CallError::new(
                    Code::Unavailable,
                    CallErrorKind::ResponseInterrupted,
                    reason,
                );
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                // Without trailers there is no status: the generated client reports that.
                self.settle(Classification::Transport);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let over = self
                    .deadline
                    .as_mut()
                    .is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
                if !over {
                    return Poll::Pending;
                }
                let reason = format!(
                    "{} had not finished its response at the deadline of the caller",
                    self.instance()
                );
                self.rest = None;
                self.tracker = None;
                let error = CallError::new(Code::DeadlineExceeded, CallErrorKind::Deadline, reason);
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }
}
