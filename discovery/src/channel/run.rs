//! The loop of one call, from the caller's request to a response or the last failed attempt.
//!
//! ```text
//! pick from the snapshot -> send -> read the answer -> hand it out
//!   ^                                  |
//!   '---- wait, if the policy retries -'
//! ```
//!
//! Other attempts begin beside one that is slow or overdue: see `race`.
//!
//! An answer is handed out when its first message is whole: up to there another attempt can take
//! its place. The response to a streamed request is handed out with its headers.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body;
use tokio::{
    runtime::Handle,
    task,
    time::{Instant, sleep},
};

use super::{
    answer,
    attempt::{Ended, FailedAttempt},
    call::{Call, MAX_TRANSPARENT_RETRIES, failed},
    limit::is_at,
    pick::{Picked, out_of_time},
    race::until,
    record::Cause,
    response::ResponseBody,
    shared::Shared,
};
use crate::{
    BoxError,
    code::Code,
    protocol::Protocol,
    retry::{CallError, CallErrorKind, Decision, Failure, Progress},
};

/// The result of a call.
pub(super) type Called = Result<Response<ResponseBody>, CallError>;

/// A future that carries out one call, and returns what `finish` makes of its result.
pub(super) fn run<P: Protocol, B, T>(
    shared: Arc<Shared>,
    request: Request<B>,
    finish: fn(Called) -> T,
) -> BoxFuture<'static, T>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    T: Send + 'static,
{
    Box::pin(async move {
        // The task's ID is the cheaper of the two looks.
        if task::try_id().is_none() && Handle::try_current().is_err() {
            let reason = format!(
                "cannot call {}: there is no tokio runtime here",
                shared.service
            );
            let kind = CallErrorKind::NoRuntime;
            return finish(Err(CallError::new(Code::Unavailable, kind, reason)));
        }
        finish(match Call::<P>::begin(shared, request) {
            // Boxed apart from the request, whose place is not used again: glibc's malloc takes longer for
            // more than a kilobyte.
            Ok(call) => Box::pin(call.complete()).await,
            Err(error) => Err(error),
        })
    })
}

impl<P: Protocol> Call<P> {
    /// Carries out the call.
    async fn complete(mut self: Box<Self>) -> Called {
        match self.run().await {
            Ok(mut response) => {
                response.body_mut().take_over(&mut self.record);
                self.shared.counters.calls_ok.increment(1);
                Ok(response)
            }
            Err(error) => Err(failed(&self.shared, &mut self.record, error)),
        }
    }

    async fn run(&mut self) -> Called {
        loop {
            if self.limit.is_over(self.now) {
                return Err(self.out_of_time());
            }
            let from = self.now;
            let picked = self.picking().pick().await?;
            self.record.waited(from, self.now);
            let failed = match self.try_once(picked).await {
                Ok(mut response) => {
                    // Rare, and read first so that the usual call does not pay for it.
                    if self.attempts.failures() > 0 {
                        let earlier = self.attempts.earlier();
                        response.extensions_mut().insert(earlier);
                    }
                    self.policy.limit.succeeded(self.now);
                    self.blame_wrong_servers();
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            // Boxed, so that calls without a failure do not pay for its size.
            if let Some(result) = Box::pin(self.after(*failed)).await {
                return result;
            }
            self.now = Instant::now();
        }
    }

    fn out_of_time(&mut self) -> CallError {
        out_of_time(&self.shared, &mut self.attempts, &self.limit)
    }

    /// Decides what follows a failed attempt. `None` is another attempt.
    async fn after(&mut self, mut failed: FailedAttempt) -> Option<Called> {
        let failure = failed.failure;
        self.note(&mut failed);
        let progress = self.progress();
        let policy = Arc::clone(&self.policy);
        let policy = &policy.retry;
        let (kind, why) = match policy.decide(failure, progress, &mut self.rng) {
            Decision::Stop => {
                if let Failure::WrongServer(_) = failure {
                    return Some(self.no_right_server(failed, progress));
                }
                if policy.repeats(failure, self.idempotent) {
                    self.policy.limit.failed();
                }
                self.stopped(failure, progress)
            }
            Decision::Retry { paid: false, .. }
                if self.attempts.failures() >= MAX_TRANSPARENT_RETRIES =>
            {
                let kind = CallErrorKind::AttemptsExhausted;
                (kind, "no instance processes the request")
            }
            Decision::Retry { after, paid } => {
                let now = Instant::now();
                if failure == Failure::Timeout && is_at(self.limit.deadline(), now) {
                    return Some(Err(self.out_of_time()));
                }
                if self.limit.is_over(now + after) {
                    let kind = CallErrorKind::Deadline;
                    (kind, "no time is left for another attempt")
                } else if paid && !self.policy.limit.withdraw(now) {
                    self.shared.counters.denied.increment(1);
                    (CallErrorKind::BudgetExhausted, "the retry budget is empty")
                } else {
                    self.shared.counters.retries.increment(1);
                    self.record.next(Cause::retry(paid));
                    self.record.idle(now);
                    if !after.is_zero() {
                        sleep(after).await;
                    }
                    return None;
                }
            }
        };
        // A server's own answer is the caller's, unless there are other attempts to report.
        if let Some(answer) = failed.answer
            && (P::ENDS_WITH_LAST_ANSWER
                || self.attempts.failures() == 1
                || !policy.repeats(failure, self.idempotent))
        {
            self.blame_wrong_servers();
            let mut response = answer.response;
            if let Some(earlier) = self.attempts.before_last() {
                response.extensions_mut().insert(earlier);
            }
            self.hand_out(&response, failure);
            return Some(Ok(response));
        }
        let reason = match kind {
            CallErrorKind::RequestFailed | CallErrorKind::MessageTooLong => {
                format!("call to {}: {why}", self.shared.service)
            }
            CallErrorKind::Deadline => {
                format!(
                    "no answer from {} within {}: {why}",
                    self.shared.service, self.limit
                )
            }
            _ => format!("no answer from {}: {why}", self.shared.service),
        };
        Some(Err(self.error(failure.code(), kind, reason)))
    }

    /// Ends the call with the answer to an attempt that has failed, unless that is still being received.
    fn hand_out(&mut self, answer: &Response<ResponseBody>, failure: Failure) {
        if !answer.body().is_open() {
            self.record.end(failure.code());
        }
    }

    /// Ends a call for which no other instance can be tried after one that does not have the method.
    /// If all say so, it is the caller's answer.
    fn no_right_server(&mut self, failed: FailedAttempt, progress: Progress) -> Called {
        if !progress.replayable {
            if self.is_method_known() {
                self.blame_wrong_servers();
            }
        } else if self.all_are_wrong() {
            self.forget_method();
        } else {
            let reason = format!(
                "no answer from {}: the instances that could be tried do not have the method",
                self.shared.service
            );
            return Err(self.error(Code::Unavailable, CallErrorKind::NotRetryable, reason));
        }
        match failed.answer {
            Some(answer) => {
                self.hand_out(&answer.response, failed.failure);
                Ok(answer.response)
            }
            None => Err(self.error(
                failed.failure.code(),
                CallErrorKind::NotRetryable,
                format!("{} does not have the method", self.shared.service),
            )),
        }
    }

    /// The reason for which the policy does not repeat an attempt.
    fn stopped(&self, failure: Failure, progress: Progress) -> (CallErrorKind, &'static str) {
        let not_retryable = CallErrorKind::NotRetryable;
        match failure {
            Failure::Timeout => {
                let why = if !progress.replayable {
                    "the request cannot be sent again"
                } else if !progress.idempotent {
                    "the method is not declared idempotent, so it was sent once"
                } else {
                    "all attempts are used up"
                };
                (CallErrorKind::Deadline, why)
            }
            Failure::Caller(_) => (CallErrorKind::RequestFailed, "the caller ended its request"),
            Failure::TooLong => (
                CallErrorKind::MessageTooLong,
                "a message is longer than its method allows",
            ),
            _ if !progress.replayable => (not_retryable, "the request cannot be sent again"),
            _ if progress.attempts >= self.policy.retry.max_attempts => {
                (CallErrorKind::AttemptsExhausted, "all attempts are used up")
            }
            _ => (not_retryable, "the method may not be repeated"),
        }
    }

    /// Makes one attempt, and others beside it if it is slow.
    async fn try_once(&mut self, picked: Picked) -> Ended {
        let Some(body) = self.replay.attempt() else {
            // `after` has looked; the connection's task may have taken the body since.
            return Err(Box::new(FailedAttempt {
                endpoint: Arc::clone(picked.endpoint()),
                begun: self.now,
                failure: Failure::Broken,
                reason: "an earlier attempt has taken the request's body".to_owned(),
                answer: None,
                wrong_server: None,
            }));
        };
        let (attempt, sent) = self.attempt(picked, body);
        let next = self.next_after(&attempt);
        let mut reading = pin!(answer::read::<P>(
            sent,
            self.held(),
            self.policy.max_response
        ));
        let first = attempt.limit.into_iter().chain(next.map(|next| next.at));
        let read = until(first.min(), reading.as_mut()).await;
        self.now = Instant::now();
        let next = match (read, next) {
            (Some(read), _) => return attempt.finish(read, self.now, &mut self.record),
            (None, Some(next)) if !self.limit.is_over(self.now) => next,
            (None, _) => return Err(attempt.timed_out(self.now)),
        };
        // Boxed, so that calls that are not slow do not pay for its size.
        Box::pin(self.race(attempt, reading, next)).await
    }
}
