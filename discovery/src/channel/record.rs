//! The record of a call and of its attempts, for gRPC's metrics and for traces. Each ends once: with a
//! status, or as CANCELLED when it is dropped.

use std::sync::Arc;

use http::{HeaderMap, Method};
use tokio::time::Instant;
use tracing::Span;

use super::trace::{self, Begin, Propagate};
use crate::{
    code::Code,
    connection::body::OneShot,
    instance::Instance,
    metrics::{CallCounts, MethodMetrics, TargetMetrics},
    protocol::Protocol,
    retry::CallError,
};

/// The reason for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    First,
    /// An earlier attempt has failed, or is overdue.
    Retry,
    /// No server has processed an earlier attempt.
    Transparent,
    /// An earlier attempt is slow.
    Hedge,
}

impl Cause {
    /// A retry that takes a token of the budget, or one of a request that no server has processed.
    pub(super) fn retry(paid: bool) -> Self {
        if paid { Self::Retry } else { Self::Transparent }
    }
}

/// The record of one call.
pub(super) struct CallRecord {
    /// `None` for a protocol other than gRPC.
    metrics: Option<&'static MethodMetrics>,
    hash: u64,
    begun: Instant,
    span: Span,
    attempts: u32,
    counts: CallCounts,
    cause: Cause,
    /// The end of the last attempt, while none is under way.
    idle_since: Option<Instant>,
    /// The time from which on the next attempt has waited for a connection.
    waiting_since: Option<Instant>,
    ended: bool,
}

impl CallRecord {
    /// Begins the record of a call that speaks the protocol `P`.
    pub(super) fn begin<P: Protocol>(
        target: &'static TargetMetrics,
        service: &str,
        method: &Method,
        path: &str,
    ) -> Self {
        let hash = P::method(method, path);
        let span = if P::IS_RPC {
            trace::call(path.strip_prefix('/').unwrap_or(path), service)
        } else {
            Span::none()
        };
        Self {
            metrics: P::IS_RPC.then(|| target.method(path, hash)),
            hash,
            begun: Instant::now(),
            span,
            attempts: 0,
            counts: CallCounts::default(),
            cause: Cause::First,
            idle_since: None,
            waiting_since: None,
            ended: false,
        }
    }

    /// The record, to be ended elsewhere.
    pub(super) fn take(&mut self) -> Self {
        let ended = std::mem::replace(&mut self.ended, true);
        Self {
            metrics: self.metrics,
            hash: self.hash,
            begun: self.begun,
            span: std::mem::replace(&mut self.span, Span::none()),
            attempts: self.attempts,
            counts: std::mem::take(&mut self.counts),
            cause: self.cause,
            idle_since: self.idle_since,
            waiting_since: self.waiting_since,
            ended,
        }
    }

    /// The time at which the call began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// The hash of the method's path.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Notes the reason for the next attempt.
    pub(super) fn next(&mut self, cause: Cause) {
        self.cause = cause;
        match cause {
            Cause::First => {}
            Cause::Retry => self.counts.retries += 1,
            Cause::Transparent => self.counts.transparent += 1,
            Cause::Hedge => self.counts.hedges += 1,
        }
    }

    /// Notes that no attempt is under way from now on.
    pub(super) fn idle(&mut self, now: Instant) {
        self.idle_since = Some(now);
    }

    /// Notes how long the next attempt has waited for a connection.
    pub(super) fn waited(&mut self, from: Instant, until: Instant) {
        self.waiting_since = Some(from).filter(|from| *from < until);
    }

    /// Begins the record of an attempt. `previous` is the number of those before it.
    pub(super) fn attempt(
        &mut self,
        path: &str,
        instance: &Instance,
        previous: u32,
        sent: Sent,
        now: Instant,
    ) -> AttemptRecord {
        if let Some(since) = self.idle_since.take() {
            self.counts.delay += now.saturating_duration_since(since);
        }
        self.attempts += 1;
        let span = match self.metrics {
            None => Span::none(),
            Some(metrics) => {
                metrics.begin();
                trace::attempt(
                    &self.span,
                    Begin {
                        method: path.strip_prefix('/').unwrap_or(path),
                        instance,
                        previous,
                        transparent: self.cause == Cause::Transparent,
                        hedge: self.cause == Cause::Hedge,
                    },
                )
            }
        };
        let waiting = self.waiting_since.take();
        if let Some(since) = waiting {
            trace::delayed_pick(&span, now.saturating_duration_since(since));
        }
        if let Sent::Whole(size) = sent {
            trace::sent(&span, size);
        }
        AttemptRecord {
            metrics: self.metrics,
            // With the time of the pick (gRFC A66).
            begun: waiting.unwrap_or(now),
            span,
            sent,
            received: 0,
            ended: false,
        }
    }

    /// Ends the call with the whole answer to an attempt.
    pub(super) fn answered(&mut self, mut attempt: AttemptRecord, code: Code, now: Instant) {
        self.ended = true;
        attempt.ended = true;
        let (sent, received) = (attempt.sent.size(), attempt.received);
        match self.metrics {
            None => {}
            Some(metrics) if self.attempts == 1 => {
                let elapsed = now.saturating_duration_since(self.begun);
                metrics.end_single(code, elapsed, sent, received);
            }
            Some(metrics) => {
                let elapsed = now.saturating_duration_since(attempt.begun);
                metrics.end_attempt(code, elapsed, sent, received);
                self.count(code, now);
            }
        }
        attempt.trace(code, "");
        trace::end(&self.span, code, "");
    }

    /// Ends the call with a status whose attempt has ended before.
    pub(super) fn end(&mut self, code: Code) {
        self.ended = true;
        self.count(code, Instant::now());
        trace::end(&self.span, code, "");
    }

    /// Ends the call with an error of the channel.
    pub(super) fn fail(&mut self, error: &CallError, now: Instant) {
        self.ended = true;
        self.count(error.code, now);
        trace::end(&self.span, error.code, &error.reason);
    }

    fn count(&self, code: Code, now: Instant) {
        let elapsed = now.saturating_duration_since(self.begun);
        if let Some(metrics) = self.metrics {
            metrics.end_call(code, elapsed, &self.counts);
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if !self.ended {
            self.count(Code::Cancelled, Instant::now());
            trace::end(&self.span, Code::Cancelled, "the caller dropped the call");
        }
    }
}

/// The request of an attempt, as far as its size goes.
pub(super) enum Sent {
    /// One message of this size.
    Whole(u64),
    /// A body that is sent while the attempt is under way.
    Stream(Arc<OneShot>),
}

impl Sent {
    fn size(&self) -> u64 {
        match self {
            Self::Whole(size) => *size,
            Self::Stream(body) => body.sent(),
        }
    }
}

/// The record of one attempt.
pub(super) struct AttemptRecord {
    metrics: Option<&'static MethodMetrics>,
    begun: Instant,
    span: Span,
    sent: Sent,
    /// Bytes of response messages.
    pub(super) received: u64,
    ended: bool,
}

impl AttemptRecord {
    /// Lets the application write the context of the attempt into its headers.
    pub(super) fn propagate(&self, propagate: &Propagate, headers: &mut HeaderMap) {
        self.span.in_scope(|| propagate(headers));
    }

    /// Ends the attempt apart from its call.
    pub(super) fn end(mut self, code: Code, reason: &str) {
        self.finish(code, reason);
    }

    fn finish(&mut self, code: Code, reason: &str) {
        self.ended = true;
        let elapsed = self.begun.elapsed();
        let (sent, received) = (self.sent.size(), self.received);
        if let Some(metrics) = self.metrics {
            metrics.end_attempt(code, elapsed, sent, received);
        }
        self.trace(code, reason);
    }

    fn trace(&self, code: Code, reason: &str) {
        if self.received > 0 {
            trace::received(&self.span, self.received);
        }
        trace::end(&self.span, code, reason);
    }
}

impl Drop for AttemptRecord {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Code::Cancelled, "the caller dropped the call");
        }
    }
}

/// The records of a response that is still being received.
pub(super) struct Open {
    pub(super) attempt: AttemptRecord,
    /// The call, once the response is handed out.
    pub(super) call: Option<Box<CallRecord>>,
}

impl Open {
    /// Ends the response with a status.
    pub(super) fn end(self, code: Code, reason: &str) {
        match self.call {
            Some(mut call) if reason.is_empty() => {
                call.answered(self.attempt, code, Instant::now());
            }
            call => {
                self.attempt.end(code, reason);
                if let Some(mut call) = call {
                    call.end(code);
                }
            }
        }
    }
}
