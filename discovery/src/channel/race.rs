//! Several attempts of one call at a time. Another attempt begins where one is slow (a hedge), overdue,
//! or has failed while others are under way. The first answer wins and cancels the others.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::{Instant, timeout_at};

use super::{
    answer,
    attempt::{AttemptRun, Ended, FailedAttempt, Read},
    call::{Call, MAX_TRANSPARENT_RETRIES},
    pick::Choice,
    record::Cause,
};
use crate::{
    protocol::Protocol,
    retry::{Decision, Hedge},
};

/// Another attempt to begin.
#[derive(Clone, Copy)]
pub(super) struct Next {
    pub(super) at: Instant,
    reason: Reason,
}

/// The reason for another attempt.
#[derive(Clone, Copy)]
enum Reason {
    /// The first one is slow.
    Hedge,
    /// The latest one is overdue.
    Overdue,
    /// One has failed.
    Failed {
        /// True if it takes a token of the budget.
        paid: bool,
    },
}

impl Next {
    fn overdue<P>(attempt: &AttemptRun<P>) -> Option<Self> {
        let reason = Reason::Overdue;
        attempt.overdue.map(|at| Self { at, reason })
    }
}

/// An attempt under way.
struct Running<'f, P> {
    attempt: AttemptRun<P>,
    reading: Pin<Box<dyn Future<Output = Read> + Send + 'f>>,
}

/// Waits for `future` until that time.
pub(super) async fn until<F: Future>(at: Option<Instant>, future: F) -> Option<F::Output> {
    match at {
        Some(at) => timeout_at(at, future).await.ok(),
        None => Some(future.await),
    }
}

fn poll_any<P>(running: &mut [Running<'_, P>], cx: &mut Context<'_>) -> Poll<(usize, Read)> {
    for (index, one) in running.iter_mut().enumerate() {
        if let Poll::Ready(read) = one.reading.as_mut().poll(cx) {
            return Poll::Ready((index, read));
        }
    }
    Poll::Pending
}

impl<P: Protocol> Call<P> {
    /// The attempt that may follow the first one while this is under way.
    pub(super) fn next_after(&self, first: &AttemptRun<P>) -> Option<Next> {
        let hedge = self.hedge_at().map(|at| Next {
            at,
            reason: Reason::Hedge,
        });
        let overdue = Next::overdue(first);
        hedge
            .filter(|hedge| overdue.is_none_or(|overdue| hedge.at < overdue.at))
            .or(overdue)
    }

    /// The attempt that may follow one which began beside others. gRPC hedges until all attempts are
    /// used; other hedges are a single one.
    fn next_beside(&self, latest: &AttemptRun<P>, due: Next) -> Option<Next> {
        let each = matches!(self.hedge, Some(Hedge::Each(_)));
        match due.reason {
            Reason::Hedge if each => self.next_after(latest),
            _ => Next::overdue(latest),
        }
    }

    /// Continues a first attempt that has no answer when the next one is due.
    pub(super) async fn race<'f, F>(
        &mut self,
        first: AttemptRun<P>,
        reading: Pin<&'f mut F>,
        next: Next,
    ) -> Ended
    where
        F: Future<Output = Read> + Send,
    {
        let mut next = Some(next);
        // In the order in which they began. Never empty: the end of the last one is the result.
        let mut running = vec![Running::<'f, P> {
            attempt: first,
            reading: Box::pin(reading),
        }];
        loop {
            let overdue = running.iter().filter_map(|one| one.attempt.next_overdue());
            let wake = overdue
                .chain(self.limit.deadline())
                .chain(next.map(|next| next.at))
                .min();
            if let Some((index, read)) = until(wake, poll_fn(|cx| poll_any(&mut running, cx))).await
            {
                let ended = running.remove(index);
                self.now = Instant::now();
                match ended.attempt.finish(read, self.now, &mut self.record) {
                    Ok(response) => {
                        for one in &running {
                            let tracker = &one.attempt.tracker;
                            self.attempts.overtake(tracker.endpoint(), tracker.begun());
                        }
                        running.truncate(index);
                        for earlier in running {
                            earlier.attempt.overtaken(self.now);
                        }
                        return Ok(response);
                    }
                    Err(failed) if running.is_empty() => return Err(failed),
                    Err(failed) => next = self.outlived(failed, next)?,
                }
                continue;
            }
            self.now = Instant::now();
            if self.limit.is_over(self.now) {
                return Err(self.time_is_over(running));
            }
            for one in &mut running {
                one.attempt.note_overdue(self.now);
            }
            if let Some(due) = next.filter(|next| self.now >= next.at) {
                next = if let Some(another) = self.begin_beside(&running, due) {
                    let next = self.next_beside(&another.attempt, due);
                    running.push(another);
                    next
                } else {
                    Some(self.next_look(&running, due))
                };
            }
        }
    }

    /// Notes an attempt that failed while others are under way, and returns the next attempt to begin.
    ///
    /// # Errors
    ///
    /// The attempt, if it decides the call, as a status that another attempt cannot mend does (gRFC
    /// A6).
    fn outlived(
        &mut self,
        mut failed: Box<FailedAttempt>,
        next: Option<Next>,
    ) -> Result<Option<Next>, Box<FailedAttempt>> {
        let failure = failed.failure;
        let policy = Arc::clone(&self.policy);
        let policy = &policy.retry;
        if !policy.repeats(failure, self.idempotent) {
            return Err(failed);
        }
        self.note(&mut failed);
        let progress = self.progress();
        match policy.decide(failure, progress, &mut self.rng) {
            Decision::Retry { after, paid }
                if self.attempts.failures() < MAX_TRANSPARENT_RETRIES =>
            {
                let retry = Next {
                    at: Instant::now() + after,
                    reason: Reason::Failed { paid },
                };
                let earlier = next.filter(|next| next.at <= retry.at);
                Ok(Some(earlier.unwrap_or(retry)))
            }
            _ => Ok(next),
        }
    }

    /// Ends every attempt at the end of the call's time. Returns the latest one.
    fn time_is_over(&mut self, mut running: Vec<Running<'_, P>>) -> Box<FailedAttempt> {
        while running.len() > 1 {
            let mut earlier = running.remove(0).attempt.timed_out(self.now);
            self.note(&mut earlier);
        }
        running.remove(0).attempt.timed_out(self.now)
    }

    /// Begins an attempt at an instance that has none of those under way, if there is one and the
    /// budget allows it.
    fn begin_beside<'f>(
        &mut self,
        running: &[Running<'f, P>],
        next: Next,
    ) -> Option<Running<'f, P>> {
        let body = self.replay.attempt()?;
        let Choice::Picked(picked) = self.picking().choose(false) else {
            return None;
        };
        let busy = |one: &Running<'_, P>| one.attempt.tracker.endpoint().is(picked.endpoint());
        if running.iter().any(busy) {
            return None;
        }
        let counters = &self.shared.counters;
        let paid = !matches!(next.reason, Reason::Failed { paid: false });
        let limit = &self.policy.limit;
        let allowed = match next.reason {
            Reason::Hedge => limit.withdraw_for_hedge(self.now),
            _ => !paid || limit.withdraw(self.now),
        };
        if !allowed {
            counters.denied.increment(1);
            return None;
        }
        match next.reason {
            Reason::Hedge => counters.hedges.increment(1),
            Reason::Overdue | Reason::Failed { .. } => counters.retries.increment(1),
        }
        self.record.next(match next.reason {
            Reason::Hedge => Cause::Hedge,
            Reason::Overdue | Reason::Failed { .. } => Cause::retry(paid),
        });
        let (attempt, sent) = self.attempt(picked, body);
        let reading = answer::read::<P>(sent, self.held(), self.policy.max_response);
        let reading = Box::pin(reading);
        Some(Running { attempt, reading })
    }

    /// The next time to look for an instance, after there was none for an attempt.
    fn next_look(&self, running: &[Running<'_, P>], due: Next) -> Next {
        let overdue = running
            .iter()
            .filter_map(|one| Next::overdue(&one.attempt))
            .find(|overdue| overdue.at > self.now);
        overdue.unwrap_or(Next {
            at: self.now + self.overdue_after(),
            reason: due.reason,
        })
    }
}
