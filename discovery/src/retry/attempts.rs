//! The attempts of one call, and the error that reports them.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use http::HeaderMap;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::decision::Failure;
use crate::{
    code::Code,
    endpoint::{Endpoint, EndpointId},
    instance::Instance,
};

/// One attempt that gave no answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The instance that received it, or to which it could not be sent.
    pub instance: Arc<Instance>,
    /// The time it took.
    pub elapsed: Duration,
    /// The status it ended with. `UNAVAILABLE` for a lost connection, `DEADLINE_EXCEEDED` if its
    /// time was over.
    pub code: Code,
    /// The error, or the server's message.
    pub reason: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            instance,
            elapsed,
            reason,
            ..
        } = self;
        write!(f, "{instance} after {elapsed:.1?}: {reason}")
    }
}

/// The attempts of a call before the one that it has its answer from: an extension of the response. It is
/// left out if the first attempt has answered.
#[derive(Clone, Debug)]
pub struct EarlierAttempts(pub Vec<Attempt>);

/// The kind of reason for which a call ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// The request itself is malformed, such as its `grpc-timeout`.
    InvalidRequest,
    /// The request stream failed, or the caller cancelled it.
    RequestFailed,
    /// The registry names no instance of the service.
    NoInstances,
    /// The connections to all instances have failed.
    AllUnreachable,
    /// No instance that is connected reports that it serves, see
    /// [`ChannelBuilder::health_service`](crate::ChannelBuilder::health_service).
    NoneServing,
    /// Every instance has as many calls in flight as its
    /// [concurrency limit](crate::ChannelBuilder::concurrency_limit) allows.
    ConcurrencyLimit,
    /// The registry has not given an answer yet.
    RegistrySilent,
    /// The time of the call was over.
    Deadline,
    /// The retry budget did not allow another attempt.
    BudgetExhausted,
    /// As many attempts were made as the policy allows.
    AttemptsExhausted,
    /// The failure is of a kind that the policy does not retry, or the request's body was streamed
    /// and cannot be sent again.
    NotRetryable,
    /// A message is longer than the limit of its method.
    MessageTooLong,
    /// The connection was lost after the first message of the response.
    ResponseInterrupted,
    /// The runtime in which the channel was built has ended.
    RuntimeEnded,
    /// The call was made outside of a tokio runtime.
    NoRuntime,
}

/// A call that ended without an answer: the code, the kind, the reason, and every attempt.
///
/// A generated client returns it as the source of its [`tonic::Status`]; [`CallError::of`] gets it
/// back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallError {
    /// The status code that the caller receives.
    pub code: Code,
    /// The kind of reason, to decide by.
    pub kind: CallErrorKind,
    /// The reason, to read.
    pub reason: String,
    /// The attempts that failed, in the order in which they ended.
    pub attempts: Vec<Attempt>,
    trailers: Option<Box<HeaderMap>>,
}

impl CallError {
    pub(crate) fn new(code: Code, kind: CallErrorKind, reason: impl Into<String>) -> Self {
        Self {
            code,
            kind,
            reason: reason.into(),
            attempts: Vec::new(),
            trailers: None,
        }
    }

    /// The headers or trailers of the server's last status, if the call ended with its code: they
    /// hold its details and metadata.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        for (index, attempt) in self.attempts.iter().enumerate() {
            let lead = if index == 0 { "; tried " } else { "; then " };
            write!(f, "{lead}{attempt}")?;
        }
        Ok(())
    }
}

impl Error for CallError {}

/// The attempts of a call.
#[derive(Default)]
pub(crate) struct Attempts {
    /// One in most calls, which need no allocation for it.
    tried: SmallVec<[EndpointId; 2]>,
    failed: Vec<Attempt>,
    sent: u32,
    /// The last status that a server sent.
    trailers: Option<Box<HeaderMap>>,
}

impl Attempts {
    /// True before the first attempt.
    pub(crate) fn is_empty(&self) -> bool {
        self.tried.is_empty()
    }

    /// Attempts that were sent and may have been processed, the current ones included.
    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    pub(crate) fn has_tried(&self, endpoint: &Endpoint) -> bool {
        self.tried.contains(&endpoint.id())
    }

    /// Notes an attempt that begins.
    pub(crate) fn begin(&mut self, endpoint: &Endpoint) {
        self.sent += 1;
        if !self.has_tried(endpoint) {
            self.tried.push(endpoint.id());
        }
    }

    /// Notes an attempt that failed. One that no server has executed does not count as sent.
    pub(crate) fn fail(
        &mut self,
        endpoint: &Endpoint,
        begun: Instant,
        failure: Failure,
        reason: String,
        trailers: Option<HeaderMap>,
    ) {
        if matches!(failure, Failure::Unprocessed | Failure::WrongServer(_)) {
            self.sent -= 1;
        }
        self.trailers = trailers.map(Box::new);
        self.failed.push(Attempt {
            instance: Arc::clone(endpoint.instance()),
            elapsed: begun.elapsed(),
            code: failure.code(),
            reason,
        });
    }

    /// Notes an attempt that is cancelled because another one has answered.
    pub(crate) fn overtake(&mut self, endpoint: &Endpoint, begun: Instant) {
        self.failed.push(Attempt {
            instance: Arc::clone(endpoint.instance()),
            elapsed: begun.elapsed(),
            code: Code::Cancelled,
            reason: "cancelled: another attempt has answered".to_owned(),
        });
    }

    /// The failed attempts, for a call that has an answer.
    pub(crate) fn earlier(&mut self) -> EarlierAttempts {
        EarlierAttempts(std::mem::take(&mut self.failed))
    }

    /// Those before the last one, whose status is the call's answer. `None` if it was the only one.
    pub(crate) fn before_last(&mut self) -> Option<EarlierAttempts> {
        self.failed.pop();
        (!self.failed.is_empty()).then(|| self.earlier())
    }

    pub(crate) fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Ends the call.
    pub(crate) fn error(
        &mut self,
        code: Code,
        kind: CallErrorKind,
        reason: impl Into<String>,
    ) -> CallError {
        let attempts = std::mem::take(&mut self.failed);
        // Details belong to the status that they came with.
        let trailers = self
            .trailers
            .take()
            .filter(|_| attempts.last().is_some_and(|last| last.code == code));
        CallError {
            attempts,
            trailers,
            ..CallError::new(code, kind, reason)
        }
    }
}
