//! The loop of one call, from the caller's request to a response or the last failed attempt.
//!
//! ```text
//! pick from the snapshot -> send -> read the answer -> hand it out
//!   ^                                  |
//!   '---- wait, if the policy retries -'
//! ```
//!
//! An answer is handed out when its first message is whole: up to there another attempt can take
//! its place. The response to a streamed request is handed out with its headers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Request, Response};
use http_body::Body;
use tokio::{
    runtime::Handle,
    task,
    time::{Instant, sleep},
};

use super::{
    attempt::{AttemptRun, FailedAttempt},
    call::Call,
    pick::{Choice, Picked, out_of_time},
    response::ResponseBody,
    shared::Shared,
    tracker::note,
};
use crate::{
    BoxError,
    code::Code,
    ejection::Classification,
    protocol::Protocol,
    retry::{CallError, CallErrorKind, Decision, Failure, Progress},
};

/// An attempt that no server processed is repeated while time is left; this bounds a call that has
/// no deadline.
const MAX_TRANSPARENT_RETRIES: usize = 64;

/// Carries out one call.
pub(super) async fn run<P: Protocol, B>(
    shared: Arc<Shared>,
    request: Request<B>,
) -> Result<Response<ResponseBody>, CallError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // The task's ID is the cheaper of the two looks.
    let result = if task::try_id().is_none() && Handle::try_current().is_err() {
        Err(CallError::new(
            Code::Unavailable,
            CallErrorKind::NoRuntime,
            format!(
                "cannot call {}: there is no tokio runtime here",
                shared.service
            ),
        ))
    } else {
        match Call::<P>::new(&shared, request) {
            Ok(mut call) => call.run().await,
            Err(error) => Err(error),
        }
    };
    match &result {
        Ok(_) => shared.counters.calls_ok.increment(1),
        Err(error) => shared.counters.failure(error.code),
    }
    result
}

impl<P: Protocol> Call<'_, P> {
    async fn run(&mut self) -> Result<Response<ResponseBody>, CallError> {
        loop {
            if self.limit.is_over(self.now) {
                return Err(self.out_of_time());
            }
            let picked = self.picking().pick().await?;
            let failed = match self.try_once(picked).await {
                Ok(response) => {
                    self.shared.budget.deposit(Instant::now());
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            if let Some(result) = self.after(*failed).await {
                return result;
            }
            self.now = Instant::now();
        }
    }

    fn out_of_time(&mut self) -> CallError {
        out_of_time(self.shared, &mut self.attempts, &self.limit)
    }

    /// Decides what follows a failed attempt. `None` is another attempt.
    async fn after(
        &mut self,
        mut failed: FailedAttempt,
    ) -> Option<Result<Response<ResponseBody>, CallError>> {
        let failure = failed.failure;
        self.note(&mut failed);
        let progress = Progress {
            attempts: self.attempts.sent(),
            replayable: self.replay.attempt().is_some(),
            idempotent: self.idempotent,
            untried_left: self.has_untried(),
        };
        let policy = &self.shared.policy;
        let (kind, why) = match policy.decide(failure, progress, &mut self.rng) {
            Decision::Stop => self.stopped(failure, progress),
            Decision::Retry { paid: false, .. }
                if self.attempts.failures() >= MAX_TRANSPARENT_RETRIES =>
            {
                let kind = CallErrorKind::AttemptsExhausted;
                (kind, "no instance processes the request")
            }
            Decision::Retry { after, paid } => {
                let now = Instant::now();
                if failure == Failure::Timeout && self.limit.is_over(now) {
                    return Some(Err(self.out_of_time()));
                }
                if self.limit.is_over(now + after) {
                    let kind = CallErrorKind::Deadline;
                    (kind, "no time is left for another attempt")
                } else if paid && !self.shared.budget.withdraw(now) {
                    self.shared.counters.denied.increment(1);
                    (CallErrorKind::BudgetExhausted, "the retry budget is empty")
                } else {
                    self.shared.counters.retries.increment(1);
                    if !after.is_zero() {
                        sleep(after).await;
                    }
                    return None;
                }
            }
        };
        // A server's own answer is the caller's, unless there are other attempts to report.
        if let Some(answer) = failed.answer
            && (self.attempts.failures() == 1 || !policy.repeats(failure, self.idempotent))
        {
            return Some(Ok(answer.response));
        }
        let reason = match kind {
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

    /// The reason for which the policy does not repeat an attempt.
    fn stopped(&self, failure: Failure, progress: Progress) -> (CallErrorKind, &'static str) {
        let not_retryable = CallErrorKind::NotRetryable;
        match failure {
            _ if !progress.replayable => (not_retryable, "the request cannot be sent again"),
            _ if progress.attempts >= self.shared.policy.max_attempts => {
                (CallErrorKind::AttemptsExhausted, "all attempts are used up")
            }
            Failure::Timeout => (
                CallErrorKind::Deadline,
                "the method is not declared idempotent, so it was sent once",
            ),
            _ => (not_retryable, "the method may not be repeated"),
        }
    }

    /// Adds a failed attempt to the call's record.
    fn note(&mut self, failed: &mut FailedAttempt) {
        let trailers = failed
            .answer
            .as_mut()
            .map(|answer| std::mem::take(&mut answer.trailers));
        self.attempts.fail(
            &failed.endpoint,
            failed.begun,
            failed.failure,
            std::mem::take(&mut failed.reason),
            trailers,
        );
    }

    /// Makes one attempt, or two if the policy hedges.
    async fn try_once(
        &mut self,
        picked: Picked,
    ) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let Some(body) = self.replay.attempt() else {
            // `after` has looked; the connection's task may have taken the body since.
            return Err(Box::new(FailedAttempt {
                endpoint: picked.endpoint,
                begun: self.now,
                failure: Failure::Broken,
                reason: "an earlier attempt has taken the request's body".to_owned(),
                answer: None,
            }));
        };
        let first = self.attempt(picked, body, self.attempt_limit());
        match self.shared.hedge_delay() {
            Some(delay)
                if self.idempotent && self.attempts.sent() < self.shared.policy.max_attempts =>
            {
                Box::pin(self.hedged(first, delay)).await
            }
            _ => first.run().await,
        }
    }

    /// A first attempt, and a second one if the first takes longer than `delay`.
    async fn hedged(
        &mut self,
        first: AttemptRun<P>,
        delay: std::time::Duration,
    ) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let limit = first.limit;
        let endpoint = Arc::clone(first.tracker.endpoint());
        let (begun, trial) = (first.tracker.begun(), first.tracker.is_trial());
        let first = first.run();
        tokio::pin!(first);
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = sleep(delay) => {}
        }
        let Some(second) = self.second(limit) else {
            return first.await;
        };
        let second = second.run();
        tokio::pin!(second);
        match select(first, second).await {
            Either::Left((Ok(response), _)) => Ok(response),
            Either::Right((Ok(response), _)) => {
                // The first is cancelled, so its own timeout cannot report a hung instance.
                let now = Instant::now();
                endpoint.stats().observe(now, now - begun, false);
                note(self.shared, &endpoint, Classification::Overtaken, trial);
                Ok(response)
            }
            Either::Left((Err(failed), other)) | Either::Right((Err(failed), other)) => {
                match self.outlived(failed) {
                    None => other.await,
                    Some(failed) => Err(failed),
                }
            }
        }
    }

    /// Notes an attempt that failed while another one is under way. Gives it back if it decides the
    /// call, as a status that another attempt cannot mend does (gRFC A6).
    fn outlived(&mut self, mut failed: Box<FailedAttempt>) -> Option<Box<FailedAttempt>> {
        if !self.shared.policy.repeats(failed.failure, self.idempotent) {
            return Some(failed);
        }
        self.note(&mut failed);
        None
    }

    /// A second attempt while the first is under way, if another instance can take it and the budget
    /// allows it.
    fn second(&mut self, limit: Option<Instant>) -> Option<AttemptRun<P>> {
        self.now = Instant::now();
        let body = self.replay.attempt()?;
        let Choice::Picked(picked) = self.picking().choose() else {
            return None;
        };
        let elsewhere = !self.attempts.has_tried(&picked.endpoint);
        if !elsewhere || !self.shared.budget.withdraw(self.now) {
            return None;
        }
        self.shared.counters.hedges.increment(1);
        Some(self.attempt(picked, body, limit))
    }
}
