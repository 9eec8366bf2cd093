//! The response's body, as the caller reads it: notes how the call ends for the endpoint's record,
//! and keeps to the caller's deadline to the end.

use std::{
    collections::VecDeque,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::call::Shared;
use crate::{
    connection::TransportBody, ejection::Classification, endpoint::Endpoint, error::chain,
    grpc::Code, retry::CallError,
};

/// The body of a response.
pub struct ResponseBody {
    /// What was read before the response was handed out.
    read: VecDeque<Frame<Bytes>>,
    rest: Option<TransportBody>,
    tracker: Option<Tracker>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    /// A body whose end is in hand.
    pub(super) fn whole(read: VecDeque<Frame<Bytes>>) -> Self {
        Self {
            read,
            rest: None,
            tracker: None,
            deadline: None,
        }
    }

    /// A body still under way, to be over by the caller's deadline.
    pub(super) fn open(
        read: VecDeque<Frame<Bytes>>,
        rest: TransportBody,
        tracker: Tracker,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            read,
            rest: Some(rest),
            tracker: Some(tracker),
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
        }
    }

    fn settle(&mut self, classification: Classification) {
        self.rest = None;
        if let Some(tracker) = self.tracker.take() {
            tracker.settle(classification);
        }
    }

    fn instance(&self) -> String {
        self.tracker.as_ref().map_or_else(String::new, |tracker| {
            tracker.endpoint.instance().to_string()
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
                if let Some(trailers) = frame.trailers_ref() {
                    let code = Code::in_headers(trailers).unwrap_or(Code::Unknown);
                    self.settle(classification(code));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = format!(
                    "{} broke off in the middle of its response: {}",
                    self.instance(),
                    chain(&*error)
                );
                self.settle(Classification::Transport);
                let error = CallError::new(Code::Unavailable, reason);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                // No trailers: the client above sees that there is no status.
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
                    "{} had not finished its response at the caller's deadline",
                    self.instance()
                );
                self.rest = None;
                self.tracker = None;
                let error = CallError::new(Code::DeadlineExceeded, reason);
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }
}

/// What a status says about the server that gave it.
pub(super) fn classification(code: Code) -> Classification {
    if code == Code::ResourceExhausted {
        Classification::Overloaded
    } else if code.is_server_fault() {
        Classification::Status
    } else {
        Classification::Success
    }
}

/// Counts an attempt as in flight until it is settled or dropped.
pub(super) struct Tracker {
    shared: Arc<Shared>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) begun: Instant,
    /// Whether it is the one call of a probation.
    pub(super) trial: bool,
    settled: bool,
}

impl Tracker {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        endpoint: Arc<Endpoint>,
        trial: bool,
        begun: Instant,
    ) -> Self {
        endpoint.stats().begin();
        Self {
            shared: Arc::clone(shared),
            endpoint,
            begun,
            trial,
            settled: false,
        }
    }

    /// Notes the latency of the first answer, or of the failure.
    pub(super) fn observe(&self, failed: bool) {
        let now = Instant::now();
        let elapsed = now - self.begun;
        self.endpoint.stats().observe(now, elapsed, failed);
        self.shared.observe(elapsed, now, failed);
    }

    /// The attempt is over and says something about its endpoint.
    pub(super) fn settle(mut self, classification: Classification) {
        self.settled = true;
        let health = self.endpoint.stats().health();
        if health.note(classification, self.trial, &self.shared.ejection) {
            self.shared.endpointer.review();
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.endpoint.stats().end();
        if !self.settled && self.trial {
            self.endpoint.stats().health().return_trial();
        }
    }
}
