//! The response's body, as the caller reads it. It notes how the call ends for the endpoint's record
//! and enforces the caller's deadline up to the last frame.

use std::{
    collections::VecDeque,
    error::Error,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
#[cfg(feature = "http")]
use http_body::SizeHint;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::{
    answer::NO_STATUS,
    limit::is_at,
    record::{AttemptRecord, CallRecord, Open, Whole},
    size_limit::TooLong,
    tracker::Tracker,
};
use crate::{
    code::Code,
    connection::{
        TransportBody,
        body::{CallerError, OneShot},
    },
    ejection::Classification,
    error::chain,
    payload::Payload,
    protocol::{Protocol, Reply},
    retry::{CallError, CallErrorKind},
};

/// The body of a response. The default is an empty body, which interceptors need.
#[derive(Default)]
pub struct ResponseBody {
    /// Frames read before the response was handed out.
    read: VecDeque<Frame<Bytes>>,
    rest: Option<TransportBody>,
    /// The attempt's bookkeeping, and the rules of its protocol.
    tracker: Option<(Tracker, Rules)>,
    record: Option<Record>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The request's body, if it may still be with the caller.
    request: Option<Arc<OneShot>>,
}

/// The record of the call.
enum Record {
    Whole(Whole),
    Open(Open),
}

/// Counts received bytes, and returns the size of the complete messages.
type Count = dyn FnMut(&[u8]) -> u64 + Send;

/// The rules of a protocol that a response needs.
struct Rules {
    /// The status in trailers, its classification, and true if it may stand for a passed deadline.
    trailers: fn(&HeaderMap) -> (Code, Classification, bool),
    /// The status of a response that does not have it in its trailers.
    known: Option<Reply>,
    caller_error: fn(&(dyn Error + 'static)) -> Code,
    /// Counts the bytes of messages.
    payload: Box<Count>,
}

impl Rules {
    fn of<P: Protocol>(known: Option<Reply>, mut payload: Payload<P::Message>) -> Self {
        Self {
            trailers: |trailers| {
                let code = P::trailers(trailers);
                (code, P::classify(code), P::is_timeout(code))
            },
            known: known.filter(|_| P::ENDS_WITHOUT_TRAILERS),
            caller_error: P::caller_error,
            payload: Box::new(move |data| payload.add(data)),
        }
    }
}

impl ResponseBody {
    /// A body that was read to its end.
    pub(super) fn whole(read: VecDeque<Frame<Bytes>>, end: Whole) -> Self {
        Self {
            read,
            record: Some(Record::Whole(end)),
            ..Self::default()
        }
    }

    /// A body that is still being received and must end by the caller's deadline. `known` is the status of
    /// a response that does not have it in its trailers.
    pub(super) fn open<P: Protocol>(
        read: VecDeque<Frame<Bytes>>,
        rest: TransportBody,
        tracker: Tracker,
        deadline: Option<Instant>,
        request: Option<Arc<OneShot>>,
        known: Option<Reply>,
        (attempt, payload): (AttemptRecord, Payload<P::Message>),
    ) -> Self {
        Self {
            read,
            rest: Some(rest),
            tracker: Some((tracker, Rules::of::<P>(known, payload))),
            record: Some(Record::Open(Open {
                attempt,
                call: None,
            })),
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
            request,
        }
    }

    /// Ends the call if the response was read whole, or else with the response. `now` is the time as of
    /// a whole answer.
    pub(super) fn take_over(&mut self, call: CallRecord, now: Instant) {
        match self.record.take() {
            Some(Record::Whole(whole)) => whole.end(call, now),
            Some(Record::Open(open)) => {
                self.record = Some(Record::Open(open.with_call(call)));
            }
            None => {}
        }
    }

    /// Ends the records of a response with its status.
    fn record_end(&mut self, code: Code, reason: &str) {
        if let Some(Record::Open(open)) = self.record.take() {
            open.end(code, reason);
        }
    }

    /// Counts the bytes of messages.
    fn count(&mut self, data: &[u8]) {
        if let (Some((_, rules)), Some(Record::Open(open))) = (&mut self.tracker, &mut self.record)
        {
            open.attempt.received = (rules.payload)(data);
        }
    }

    fn settle(&mut self, classification: Classification) {
        self.rest = None;
        if let Some((tracker, _)) = self.tracker.take() {
            tracker.settle(classification);
        }
    }

    /// True if the server may have ended the response because of the caller's deadline.
    fn is_late(&self) -> bool {
        is_at(self.deadline.as_ref().map(|sleep| sleep.deadline()))
    }

    /// Ends the response at the caller's deadline, which says nothing about the endpoint: it has
    /// answered.
    fn out_of_time(&mut self) -> CallError {
        let reason = format!(
            "{} had not finished its response at the deadline of the caller",
            self.instance()
        );
        self.rest = None;
        self.tracker = None;
        self.record_end(Code::DeadlineExceeded, &reason);
        CallError::new(Code::DeadlineExceeded, CallErrorKind::Deadline, reason)
    }

    /// The error with which the caller ended its request.
    fn caller_error(&self) -> Option<CallerError> {
        self.request.as_ref()?.failure().cloned()
    }

    /// Ends the response because the caller ended its request, which says nothing about the endpoint.
    fn ended_by_caller(&mut self, error: &CallerError) -> CallError {
        let instance = self.instance();
        self.rest = None;
        let code = self
            .tracker
            .take()
            .map_or(Code::Cancelled, |(_, rules)| (rules.caller_error)(error));
        let reason = format!(
            "call to {instance}: the caller ended its request: {}",
            chain(error)
        );
        self.record_end(code, &reason);
        CallError::new(code, CallErrorKind::RequestFailed, reason)
    }

    /// Ends a response that broke off.
    fn interrupted(&mut self, reason: &str) -> CallError {
        let reason = format!("{} {reason}", self.instance());
        self.settle(Classification::Transport);
        self.record_end(Code::Unavailable, &reason);
        let kind = CallErrorKind::ResponseInterrupted;
        CallError::new(Code::Unavailable, kind, reason)
    }

    /// Ends a response whose message is too long, which says nothing about the endpoint.
    fn too_long(&mut self, error: TooLong) -> CallError {
        let reason = format!("{}: {error}", self.instance());
        self.rest = None;
        self.tracker = None;
        self.record_end(Code::ResourceExhausted, &reason);
        CallError::new(
            Code::ResourceExhausted,
            CallErrorKind::MessageTooLong,
            reason,
        )
    }

    /// The next frame, or the error with which the response ends.
    pub(crate) fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        match Pin::new(rest).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref()
                    && let Some((tracker, rules)) = &self.tracker
                {
                    tracker.note_load(trailers);
                    let (code, classification, may_be_timeout) = (rules.trailers)(trailers);
                    if may_be_timeout && self.is_late() {
                        return Poll::Ready(Some(Err(self.out_of_time())));
                    }
                    if let Some(known) = self.known() {
                        self.complete(known);
                    } else {
                        self.settle(classification);
                        self.record_end(code, "");
                    }
                } else if let Some(known) = self.known()
                    && self.rest.as_ref().is_some_and(Body::is_end_stream)
                {
                    self.complete(known);
                } else if let Some(data) = frame.data_ref() {
                    self.count(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) if let Some(known) = self.known() => {
                self.complete(known);
                Poll::Ready(None)
            }
            Poll::Ready(_) if let Some(error) = self.caller_error() => {
                Poll::Ready(Some(Err(self.ended_by_caller(&error))))
            }
            Poll::Ready(_) if self.is_late() => Poll::Ready(Some(Err(self.out_of_time()))),
            Poll::Ready(Some(Err(error))) if let Some(error) = TooLong::of(&*error) => {
                Poll::Ready(Some(Err(self.too_long(error))))
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = format!("broke off its response: {}", chain(&*error));
                Poll::Ready(Some(Err(self.interrupted(&reason))))
            }
            // A stream that the server cancels ends like this too.
            Poll::Ready(None) => {
                let reason = format!("broke off its response: {NO_STATUS}");
                Poll::Ready(Some(Err(self.interrupted(&reason))))
            }
            Poll::Pending => {
                let over = self
                    .deadline
                    .as_mut()
                    .is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
                if !over {
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(self.out_of_time())))
            }
        }
    }

    /// Ends a response with the status that its head had.
    fn complete(&mut self, known: Reply) {
        self.settle(known.classification);
        self.record_end(known.code, "");
    }

    /// The status of a response that does not have it in its trailers.
    fn known(&self) -> Option<Reply> {
        self.tracker.as_ref()?.1.known
    }

    /// True if nothing follows, not even an error.
    pub(crate) fn is_over(&self) -> bool {
        self.read.is_empty() && self.rest.is_none()
    }

    /// The length of what follows.
    #[cfg(feature = "http")]
    pub(crate) fn remaining(&self) -> SizeHint {
        let read = self.read.iter().filter_map(Frame::data_ref);
        let read: u64 = read.map(|data| data.len() as u64).sum();
        let rest = self.rest.as_ref().map(Body::size_hint);
        let Some(rest) = rest else {
            return SizeHint::with_exact(read);
        };
        let mut all = SizeHint::new();
        all.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            all.set_upper(upper + read);
        }
        all
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
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.poll_next(cx).map_err(Status::from)
    }

    fn is_end_stream(&self) -> bool {
        // An end without trailers is an error, which must be polled.
        self.is_over()
    }
}
