//! One attempt: its limits, its end, and what it says about the endpoint.

use std::{collections::VecDeque, marker::PhantomData, mem, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Extensions, HeaderMap, Response, response::Parts};
use http_body::Frame;
use tokio::time::Instant;

use super::{
    answer::{Answer, AttemptError},
    limit::is_at,
    record::{AttemptRecord, CallRecord},
    response::ResponseBody,
    size_limit::TooLong,
    tracker::{Outcome, Tracker},
};
use crate::{
    code::Code,
    connection::{SendError, TransportBody, body::OneShot},
    ejection::Classification,
    endpoint::Endpoint,
    error::chain,
    instance::Instance,
    payload::Payload,
    protocol::{Protocol, Reply},
    retry::Failure,
};

/// The instance that answered: an extension of every response.
#[derive(Clone, Debug)]
pub struct ServedBy(pub Arc<Instance>);

/// An attempt without an answer to hand out at once.
pub(super) struct FailedAttempt {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) begun: Instant,
    pub(super) failure: Failure,
    pub(super) reason: String,
    /// The server's own answer, if there is one.
    pub(super) answer: Option<ServerStatus>,
    /// The attempt at a server that does not have the method: it counts against its endpoint if
    /// another one answers.
    pub(super) wrong_server: Option<Tracker>,
}

/// A status that a server sent instead of a message.
pub(super) struct ServerStatus {
    pub(super) response: Response<ResponseBody>,
    /// The headers that hold the status: details and trailing metadata.
    pub(super) trailers: HeaderMap,
}

/// The response of a request that was handed to its connection.
pub(super) type Sent = BoxFuture<'static, Result<Response<TransportBody>, SendError>>;

/// The part of the answer that was read, or the reason why there is none.
pub(super) type Read = Result<(Parts, Answer), AttemptError>;

/// The end of an attempt.
pub(super) type Ended = Result<Response<ResponseBody>, Box<FailedAttempt>>;

/// A request whose body may still have been with the caller when the attempt began.
pub(super) struct OpenRequest {
    /// `None` if it was complete.
    pub(super) body: Option<Arc<OneShot>>,
    /// True if the caller was still producing it.
    pub(super) is_streaming: bool,
}

impl OpenRequest {
    /// True if the server may be waiting for the caller.
    fn is_unfinished(&self) -> bool {
        self.is_streaming && self.body.as_ref().is_some_and(|body| !body.is_complete())
    }
}

/// An attempt under way, apart from the reading of its answer.
pub(super) struct AttemptRun<P> {
    pub(super) tracker: Tracker,
    /// When the attempt is overdue: another one may begin, and this one may still answer.
    pub(super) overdue: Option<Instant>,
    /// True after that time.
    pub(super) is_overdue: bool,
    /// True if the method's learnt time counts.
    pub(super) learns: bool,
    /// When the attempt is cancelled.
    pub(super) limit: Option<Instant>,
    /// The caller's own deadline, which holds for the whole response.
    pub(super) caller: Option<Instant>,
    pub(super) request: OpenRequest,
    /// The map of the request's extensions, emptied: the response needs one, and a new one is three allocations.
    pub(super) extensions: Extensions,
    pub(super) record: AttemptRecord,
    pub(super) protocol: PhantomData<P>,
}

impl<P: Protocol> AttemptRun<P> {
    /// Ends the attempt with what was read as of `now`, and the call if that is a whole answer.
    pub(super) fn finish(self, read: Read, now: Instant, call: &mut CallRecord) -> Ended {
        let is_late = self.is_overdue || is_at(self.limit, now);
        let callers = self.request.body.as_ref().and_then(|body| body.failure());
        match read {
            Err(AttemptError::Broken(_)) if let Some(error) = callers => {
                let error = error.clone();
                Err(self.failed(AttemptError::Caller(error), now))
            }
            Err(AttemptError::Broken(_)) if is_late => Err(self.timed_out(now)),
            Ok((_, answer)) if is_late && answer.code().is_some_and(P::is_timeout) => {
                Err(self.timed_out(now))
            }
            Ok((parts, answer)) => self.answered(parts, answer, now, call),
            Err(error) => Err(self.failed(error, now)),
        }
    }

    /// Ends the attempt at the end of its time.
    pub(super) fn timed_out(self, now: Instant) -> Box<FailedAttempt> {
        self.failed(AttemptError::Timeout, now)
    }

    /// Notes for the concurrency limit of the endpoint that it has too many calls.
    fn note_overload(&self, now: Instant) {
        self.tracker.endpoint().stats().note_overload(now);
    }

    /// When it will be overdue.
    pub(super) fn next_overdue(&self) -> Option<Instant> {
        self.overdue.filter(|_| !self.is_overdue)
    }

    /// Counts an attempt that has become overdue against its endpoint.
    pub(super) fn note_overdue(&mut self, now: Instant) {
        if self.next_overdue().is_some_and(|at| now >= at) {
            self.is_overdue = true;
            if self.had_a_fair_chance() {
                self.tracker.blame();
            }
        }
    }

    /// Ends the attempt because one that began later has answered.
    pub(super) fn overtaken(mut self, now: Instant) {
        if self.is_overdue {
            self.tracker.outcome(Outcome::Timeout, None, now);
            if self.had_a_fair_chance() {
                self.tracker.blame();
            }
        } else {
            self.tracker.overtaken();
        }
        self.record
            .end(Code::Cancelled, "another attempt has answered");
        self.tracker.settle(Classification::Overtaken);
    }

    fn failed(self, error: AttemptError, now: Instant) -> Box<FailedAttempt> {
        let (failure, reason, blame) = match error {
            AttemptError::Unprocessed(error) => {
                self.tracker.outcome(Outcome::Unprocessed, None, now);
                (Failure::Unprocessed, chain(&*error), false)
            }
            AttemptError::Broken(error) => {
                self.tracker.outcome(Outcome::Broken, Some(true), now);
                let reason = format!("connection lost: {}", chain(&*error));
                (Failure::Broken, reason, true)
            }
            AttemptError::Timeout => {
                let blame = self.had_a_fair_chance();
                if blame {
                    self.note_overload(now);
                }
                self.tracker
                    .outcome(Outcome::Timeout, blame.then_some(true), now);
                (Failure::Timeout, "no answer in time".to_owned(), blame)
            }
            AttemptError::Caller(error) => {
                let failure = match TooLong::of(&error) {
                    Some(_) => Failure::TooLong,
                    None => Failure::Caller(P::caller_error(&error)),
                };
                (failure, chain(&error), false)
            }
            AttemptError::TooLong(error) => (Failure::TooLong, error.to_string(), false),
        };
        let failed = self.failed_attempt(failure, reason, None);
        self.record.end(failure.code(), &failed.reason);
        if blame {
            self.tracker.settle(Classification::Transport);
        }
        failed
    }

    /// True if the endpoint, not a short limit, caused the timeout. Where the method's time is learnt, it
    /// decides, with what the other endpoints do. Where no answer of the method is known, a caller's deadline
    /// says nothing, and a limit of this side is taken for long enough. A server that may be waiting for the
    /// rest of the request owes no answer.
    fn had_a_fair_chance(&self) -> bool {
        if self.request.is_unfinished() {
            return false;
        }
        if self.learns
            && let Some(stands_out) = self.tracker.stands_out()
        {
            return stands_out;
        }
        let is_callers = !self.is_overdue && self.limit == self.caller;
        self.tracker.had_a_fair_chance().unwrap_or(!is_callers)
    }

    fn failed_attempt(
        &self,
        failure: Failure,
        reason: String,
        answer: Option<ServerStatus>,
    ) -> Box<FailedAttempt> {
        Box::new(FailedAttempt {
            endpoint: Arc::clone(self.tracker.endpoint()),
            begun: self.tracker.begun(),
            failure,
            reason,
            answer,
            wrong_server: None,
        })
    }

    fn answered(
        mut self,
        mut parts: Parts,
        answer: Answer,
        now: Instant,
        call: &mut CallRecord,
    ) -> Ended {
        let instance = Arc::clone(self.tracker.endpoint().instance());
        if parts.extensions.is_empty() {
            parts.extensions = mem::take(&mut self.extensions);
        }
        parts.extensions.insert(ServedBy(instance));
        match answer {
            Answer::Reply { reply, read, rest } => {
                self.replied(parts, (reply, read, rest), now, call)
            }
            Answer::Message { read, rest, code } => {
                let classification = P::classify(code.unwrap_or(Code::Ok));
                let failed = classification == Classification::Status;
                if let Some(trailers) = read.back().and_then(Frame::trailers_ref) {
                    self.tracker.note_load(trailers);
                }
                self.tracker.outcome(Outcome::Ok, Some(failed), now);
                let mut payload = Payload::<P::Message>::default();
                for data in read.iter().filter_map(Frame::data_ref) {
                    self.record.received = payload.add(data);
                }
                let body = if let (Some(rest), None) = (rest, code) {
                    ResponseBody::open::<P>(
                        read,
                        rest,
                        self.tracker,
                        self.caller,
                        self.request.body,
                        None,
                        (self.record, payload),
                    )
                } else {
                    self.tracker.settle(classification);
                    call.answered(self.record, code.unwrap_or(Code::Ok), now);
                    ResponseBody::whole(read)
                };
                Ok(Response::from_parts(parts, body))
            }
            Answer::Status {
                code,
                wrong_server,
                read,
                details,
            } => {
                let response = Response::from_parts(parts, ResponseBody::whole(read));
                let classification = P::classify(code);
                self.tracker.note_load(&details);
                if classification == Classification::Overloaded {
                    self.note_overload(now);
                }
                if code == Code::Ok {
                    self.tracker.outcome(Outcome::Ok, Some(false), now);
                    self.tracker.settle(classification);
                    call.answered(self.record, code, now);
                    return Ok(response);
                }
                let reason = P::describe(code, &details);
                let failure = Failure::Status(code, P::pushback(&details));
                let answer = ServerStatus {
                    response,
                    trailers: details,
                };
                if wrong_server {
                    self.tracker.outcome(Outcome::Status, None, now);
                    let failure = Failure::WrongServer(code);
                    let mut failed = self.failed_attempt(failure, reason, Some(answer));
                    self.record.end(code, &failed.reason);
                    failed.wrong_server = Some(self.tracker);
                    return Err(failed);
                }
                let failed = classification != Classification::Success;
                self.tracker.outcome(Outcome::Status, Some(failed), now);
                let failed = self.failed_attempt(failure, reason, Some(answer));
                self.record.end(code, &failed.reason);
                self.tracker.settle(classification);
                Err(failed)
            }
        }
    }

    /// Ends the attempt with a status that has a body of its own.
    fn replied(
        self,
        parts: Parts,
        (reply, read, rest): (Reply, VecDeque<Frame<Bytes>>, Option<TransportBody>),
        now: Instant,
        call: &mut CallRecord,
    ) -> Ended {
        let outcome = if reply.code == Code::Ok {
            Outcome::Ok
        } else {
            Outcome::Status
        };
        let failed = reply.classification != Classification::Success;
        self.tracker.outcome(outcome, Some(failed), now);
        let failure = reply.is_failure.then(|| {
            let reason = format!("HTTP status {}", parts.status);
            self.failed_attempt(Failure::Status(reply.code, reply.pushback), reason, None)
        });
        let body = if let Some(rest) = rest {
            ResponseBody::open::<P>(
                read,
                rest,
                self.tracker,
                self.caller,
                self.request.body,
                Some(reply),
                (self.record, Payload::default()),
            )
        } else {
            self.tracker.settle(reply.classification);
            if failure.is_some() {
                self.record.end(reply.code, "");
            } else {
                call.answered(self.record, reply.code, now);
            }
            ResponseBody::whole(read)
        };
        let response = Response::from_parts(parts, body);
        let Some(mut failed) = failure else {
            return Ok(response);
        };
        failed.answer = Some(ServerStatus {
            response,
            trailers: HeaderMap::new(),
        });
        Err(failed)
    }
}
