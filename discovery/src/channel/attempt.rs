//! One attempt: sends the request over one connection, reads the answer as far as its first message,
//! and notes what it says about the endpoint.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Response, response::Parts};
use tokio::time::{Instant, timeout_at};

use super::{
    answer::{self, Answer, AttemptError},
    response::ResponseBody,
    tracker::{Outcome, Tracker},
};
use crate::{
    code::Code,
    connection::{SendError, TransportBody},
    ejection::Classification,
    endpoint::Endpoint,
    error::chain,
    instance::Instance,
    protocol::Protocol,
    retry::Failure,
};

/// A deadline that leaves an endpoint less than this many times its usual latency says nothing
/// about the endpoint when it runs out.
const FAIR_CHANCE: u32 = 4;
/// The usual latency of an endpoint that has not answered yet.
const UNKNOWN_LATENCY: Duration = Duration::from_millis(10);

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
}

/// A status that a server sent instead of a message.
pub(super) struct ServerStatus {
    pub(super) response: Response<ResponseBody>,
    /// The headers that hold the status: details and trailing metadata.
    pub(super) trailers: HeaderMap,
}

/// An attempt whose request was handed to its connection.
pub(super) struct AttemptRun<P> {
    pub(super) tracker: Tracker,
    pub(super) response: BoxFuture<'static, Result<Response<TransportBody>, SendError>>,
    /// When the attempt is cancelled.
    pub(super) limit: Option<Instant>,
    /// The caller's own deadline, which holds for the whole response.
    pub(super) caller: Option<Instant>,
    /// True if the answer is held back until its first message is whole.
    pub(super) hold: bool,
    pub(super) protocol: PhantomData<P>,
}

impl<P: Protocol> AttemptRun<P> {
    pub(super) async fn run(mut self) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let hold = self
            .hold
            .then_some(self.tracker.shared().policy.replay_limit);
        let answer = answer::read::<P>(&mut self.response, hold);
        let result = match self.limit {
            Some(limit) => timeout_at(limit, answer)
                .await
                .unwrap_or(Err(AttemptError::Timeout)),
            None => answer.await,
        };
        match result {
            Ok((parts, answer)) => self.answered(parts, answer),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(self, error: AttemptError) -> Box<FailedAttempt> {
        let (failure, reason, blame) = match error {
            AttemptError::Unprocessed(error) => {
                self.tracker.outcome(Outcome::Unprocessed, None);
                (Failure::Unprocessed, chain(&*error), false)
            }
            AttemptError::Broken(error) => {
                self.tracker.outcome(Outcome::Broken, Some(true));
                let reason = format!("connection lost: {}", chain(&*error));
                (Failure::Broken, reason, true)
            }
            AttemptError::Timeout => {
                let blame = self.had_a_fair_chance();
                self.tracker
                    .outcome(Outcome::Timeout, blame.then_some(true));
                (Failure::Timeout, "no answer in time".to_owned(), blame)
            }
        };
        let failed = self.failed_attempt(failure, reason, None);
        if blame {
            self.tracker.settle(Classification::Transport);
        }
        failed
    }

    /// True if the endpoint, not a short caller deadline, caused the timeout.
    fn had_a_fair_chance(&self) -> bool {
        let now = Instant::now();
        let waited = now - self.tracker.begun();
        let usual = self
            .tracker
            .endpoint()
            .stats()
            .latency(now)
            .unwrap_or(UNKNOWN_LATENCY);
        waited >= self.tracker.shared().policy.attempt_limit() || waited >= usual * FAIR_CHANCE
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
        })
    }

    fn answered(
        self,
        mut parts: Parts,
        answer: Answer,
    ) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let instance = Arc::clone(self.tracker.endpoint().instance());
        parts.extensions.insert(ServedBy(instance));
        match answer {
            Answer::Message { read, rest, code } => {
                let classification = P::classify(code.unwrap_or(Code::Ok));
                let failed = classification == Classification::Status;
                self.tracker.outcome(Outcome::Ok, Some(failed));
                let body = if let (Some(rest), None) = (rest, code) {
                    ResponseBody::open::<P>(read, rest, self.tracker, self.caller)
                } else {
                    self.tracker.settle(classification);
                    ResponseBody::whole(read)
                };
                Ok(Response::from_parts(parts, body))
            }
            Answer::Status {
                code,
                read,
                details,
            } => {
                let response = Response::from_parts(parts, ResponseBody::whole(read));
                let classification = P::classify(code);
                if code == Code::Ok {
                    self.tracker.outcome(Outcome::Ok, Some(false));
                    self.tracker.settle(classification);
                    return Ok(response);
                }
                let failed = classification != Classification::Success;
                self.tracker.outcome(Outcome::Status, Some(failed));
                let failure = Failure::Status(code, P::pushback(&details));
                let reason = P::describe(code, &details);
                let answer = ServerStatus {
                    response,
                    trailers: details,
                };
                let failed = self.failed_attempt(failure, reason, Some(answer));
                self.tracker.settle(classification);
                Err(failed)
            }
        }
    }
}
