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
    record::{AttemptRecord, CallRecord, Open},
    size_limit::TooLong,
    tracker::Tracker,
};
use crate::{
    BoxError,
    code::Code,
    connection::{
        TransportBody,
        body::{CallerError, OneShot},
    },
    ejection::Classification,
    error::chain,
    instance::Instance,
    payload::Payload,
    protocol::{Protocol, Reply},
    retry::{CallError, CallErrorKind},
};

/// The body of a response. The default is an empty body, which interceptors need.
#[derive(Default)]
pub struct ResponseBody {
    /// Frames read before the response was handed out.
    read: VecDeque<Frame<Bytes>>,
    /// `None` once all frames are read. On the heap, as most responses are read whole before that.
    rest: Option<Box<Rest>>,
}

/// The part of a response that is still being received.
struct Rest {
    body: TransportBody,
    tracker: Tracker,
    rules: Rules,
    record: Open,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The request's body, if it may still be with the caller.
    request: Option<Arc<OneShot>>,
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

impl Rest {
    /// True if the server may have ended the response because of the caller's deadline.
    fn is_late(&self) -> bool {
        let deadline = self.deadline.as_ref().map(|sleep| sleep.deadline());
        is_at(deadline, Instant::now())
    }

    /// The error with which the caller ended its request.
    fn caller_error(&self) -> Option<CallerError> {
        self.request.as_ref()?.failure().cloned()
    }

    fn instance(&self) -> &Instance {
        self.tracker.endpoint().instance()
    }

    /// Ends the response with a status of the server.
    fn complete(self, code: Code, classification: Classification) {
        self.tracker.settle(classification);
        self.record.end(code, "");
    }

    /// Ends the response at the caller's deadline, which says nothing about the endpoint: it has
    /// answered.
    fn out_of_time(self) -> CallError {
        let reason = format!(
            "{} had not finished its response at the deadline of the caller",
            self.instance()
        );
        self.record.end(Code::DeadlineExceeded, &reason);
        CallError::new(Code::DeadlineExceeded, CallErrorKind::Deadline, reason)
    }

    /// Ends the response because the caller ended its request, which says nothing about the endpoint.
    fn ended_by_caller(self, error: &CallerError) -> CallError {
        let code = (self.rules.caller_error)(error);
        let reason = format!(
            "call to {}: the caller ended its request: {}",
            self.instance(),
            chain(error)
        );
        self.record.end(code, &reason);
        CallError::new(code, CallErrorKind::RequestFailed, reason)
    }

    /// Ends a response that broke off.
    fn interrupted(self, reason: &str) -> CallError {
        let reason = format!("{} broke off its response: {reason}", self.instance());
        self.tracker.settle(Classification::Transport);
        self.record.end(Code::Unavailable, &reason);
        let kind = CallErrorKind::ResponseInterrupted;
        CallError::new(Code::Unavailable, kind, reason)
    }

    /// Ends a response whose message is too long, which says nothing about the endpoint.
    fn too_long(self, error: TooLong) -> CallError {
        let reason = format!("{}: {error}", self.instance());
        self.record.end(Code::ResourceExhausted, &reason);
        CallError::new(
            Code::ResourceExhausted,
            CallErrorKind::MessageTooLong,
            reason,
        )
    }

    /// Reads the next frame. Returns the end of the response, if it is the last one.
    fn look(&mut self, frame: &Frame<Bytes>) -> Option<End> {
        if let Some(trailers) = frame.trailers_ref() {
            self.tracker.note_load(trailers);
            let (code, classification, may_be_timeout) = (self.rules.trailers)(trailers);
            return Some(if may_be_timeout && self.is_late() {
                End::OutOfTime
            } else {
                self.rules
                    .known
                    .map_or(End::Status(code, classification), End::of)
            });
        }
        if let Some(data) = frame.data_ref() {
            self.record.attempt.received = (self.rules.payload)(data);
        }
        let known = self.rules.known?;
        self.body.is_end_stream().then(|| End::of(known))
    }

    /// Ends a response whose body gives no more frames.
    fn ended(self, error: Option<BoxError>) -> Option<CallError> {
        if let (Some(known), None) = (self.rules.known, &error) {
            self.complete(known.code, known.classification);
            return None;
        }
        Some(if let Some(error) = self.caller_error() {
            self.ended_by_caller(&error)
        } else if self.is_late() {
            self.out_of_time()
        } else if let Some(error) = error.as_ref().and_then(|error| TooLong::of(&**error)) {
            self.too_long(error)
        } else {
            // A stream that the server cancels ends without an error.
            self.interrupted(&error.map_or_else(|| NO_STATUS.to_owned(), |error| chain(&*error)))
        })
    }
}

/// The end of a response with its last frame.
enum End {
    Status(Code, Classification),
    /// The status stands for the caller's deadline.
    OutOfTime,
}

impl End {
    fn of(known: Reply) -> Self {
        Self::Status(known.code, known.classification)
    }
}

impl ResponseBody {
    /// A body that was read to its end.
    pub(super) fn whole(read: VecDeque<Frame<Bytes>>) -> Self {
        Self { read, rest: None }
    }

    /// A body that is still being received and must end by the caller's deadline. `known` is the status of
    /// a response that does not have it in its trailers.
    pub(super) fn open<P: Protocol>(
        read: VecDeque<Frame<Bytes>>,
        body: TransportBody,
        tracker: Tracker,
        deadline: Option<Instant>,
        request: Option<Arc<OneShot>>,
        known: Option<Reply>,
        (attempt, payload): (AttemptRecord, Payload<P::Message>),
    ) -> Self {
        let rest = Rest {
            body,
            tracker,
            rules: Rules::of::<P>(known, payload),
            record: Open {
                attempt,
                call: None,
            },
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
            request,
        };
        Self {
            read,
            rest: Some(Box::new(rest)),
        }
    }

    /// Ends the call with the response, if it was not read whole.
    pub(super) fn take_over(&mut self, call: &mut CallRecord) {
        if let Some(rest) = &mut self.rest {
            rest.record.call = Some(Box::new(call.take()));
        }
    }

    /// True if it was not read whole.
    pub(super) fn is_open(&self) -> bool {
        self.rest.is_some()
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
        match Pin::new(&mut rest.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                match rest.look(&frame) {
                    None => {}
                    Some(End::Status(code, classification)) => {
                        if let Some(rest) = self.rest.take() {
                            rest.complete(code, classification);
                        }
                    }
                    Some(End::OutOfTime) => {
                        return Poll::Ready(self.end(|rest| Some(rest.out_of_time())));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => Poll::Ready(self.end(|rest| rest.ended(None))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(self.end(|rest| rest.ended(Some(error)))),
            Poll::Pending => {
                let deadline = rest.deadline.as_mut();
                if deadline.is_none_or(|deadline| deadline.as_mut().poll(cx).is_pending()) {
                    return Poll::Pending;
                }
                Poll::Ready(self.end(|rest| Some(rest.out_of_time())))
            }
        }
    }

    /// Ends the response without another frame.
    fn end(
        &mut self,
        end: impl FnOnce(Rest) -> Option<CallError>,
    ) -> Option<Result<Frame<Bytes>, CallError>> {
        let rest = self.rest.take()?;
        end(*rest).map(Err)
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
        let rest = self.rest.as_ref().map(|rest| rest.body.size_hint());
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
