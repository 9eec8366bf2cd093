//! The caller of a request, as its headers describe it; the same on gRPC and HTTP.

use std::future::Future;

use axum::http::{HeaderMap, HeaderName};
use discovery::{Deadline, HashKey};
use tokio::time::timeout_at;
use tonic::Status;

/// The caller's deadline and key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The deadline it gave (`grpc-timeout`).
    pub(crate) deadline: Option<Deadline>,
    /// The key that sends its requests to one instance.
    pub(crate) key: Option<HashKey>,
}

impl Caller {
    /// Reads the headers.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` when the deadline is malformed.
    pub(crate) fn of(headers: &HeaderMap, key_header: Option<&HeaderName>) -> Result<Self, Status> {
        let deadline = Deadline::from_headers(headers)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let key = key_header.and_then(|name| headers.get(name));
        Ok(Self {
            deadline,
            key: key.map(|value| HashKey::of(value.as_bytes())),
        })
    }
}

/// Runs `work` until the deadline.
///
/// # Errors
///
/// `DEADLINE_EXCEEDED` if it has not finished by then; the errors of `work`.
pub(crate) async fn keep<T>(
    deadline: Option<Deadline>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => work.await,
        Some(deadline) => timeout_at(deadline.instant(), work)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer by the deadline"))),
    }
}
