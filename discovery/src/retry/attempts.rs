//! What each attempt of a call met, and the error that tells it.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Failure;
use crate::{endpoint::Endpoint, grpc::Code, instance::Instance};

/// One attempt that gave no answer.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Where it went.
    pub instance: Arc<Instance>,
    /// How long it took.
    pub elapsed: Duration,
    /// What it met.
    pub reason: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            instance,
            elapsed,
            reason,
        } = self;
        write!(f, "{instance} after {elapsed:.1?}: {reason}")
    }
}

/// A call that ended without an answer: the code, the reason, and what every attempt met.
#[derive(Clone, Debug)]
pub struct CallError {
    /// The status the caller sees.
    pub code: Code,
    /// Why the call ended.
    pub reason: String,
    /// In the order they were made.
    pub attempts: Vec<Attempt>,
}

impl CallError {
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            attempts: Vec::new(),
        }
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

/// The attempts a call has behind it.
#[derive(Default)]
pub(crate) struct Attempts {
    tried: Vec<Arc<Endpoint>>,
    failed: Vec<Attempt>,
    /// Attempts that reached a server.
    pub(crate) sent: u32,
}

impl Attempts {
    pub(crate) fn is_empty(&self) -> bool {
        self.tried.is_empty()
    }

    pub(crate) fn has_tried(&self, endpoint: &Endpoint) -> bool {
        self.tried.iter().any(|tried| tried.is(endpoint))
    }

    pub(crate) fn begin(&mut self, endpoint: &Arc<Endpoint>) {
        if !self.has_tried(endpoint) {
            self.tried.push(Arc::clone(endpoint));
        }
    }

    /// Notes an attempt that failed; one that no server has begun was not sent.
    pub(crate) fn fail(
        &mut self,
        endpoint: &Endpoint,
        begun: Instant,
        failure: Failure,
        reason: String,
    ) {
        if failure == Failure::Unprocessed {
            self.sent -= 1;
        }
        self.failed.push(Attempt {
            instance: Arc::clone(endpoint.instance()),
            elapsed: begun.elapsed(),
            reason,
        });
    }

    pub(crate) fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Ends the call.
    pub(crate) fn error(&mut self, code: Code, reason: impl Into<String>) -> CallError {
        CallError {
            attempts: std::mem::take(&mut self.failed),
            ..CallError::new(code, reason)
        }
    }
}
