//! What a request's headers, or metadata, tell of its caller, on gRPC and on HTTP alike.

use std::future::Future;

use axum::http::{HeaderMap, HeaderName};
use discovery::HashKey;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// What a caller wants besides its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// When it gives up, if it says so (`grpc-timeout`).
    pub(crate) deadline: Option<Instant>,
    /// What keeps its requests with one instance, if it says so.
    pub(crate) key: Option<HashKey>,
}

impl Caller {
    /// Reads the headers.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` when the deadline is malformed.
    pub(crate) fn of(headers: &HeaderMap, key_header: Option<&HeaderName>) -> Result<Self, Status> {
        let timeout = discovery::grpc_timeout(headers).map_err(|value| {
            Status::invalid_argument(format!(
                "malformed grpc-timeout {value:?}: expected up to 8 digits and one of H M S m u n"
            ))
        })?;
        let key = key_header.and_then(|name| headers.get(name));
        Ok(Self {
            // A deadline too far away to be told is none.
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            key: key.map(|value| HashKey::of(value.as_bytes())),
        })
    }
}

/// Does `work` by the deadline.
///
/// # Errors
///
/// `DEADLINE_EXCEEDED` when it is not done by then, or what `work` fails with.
pub(crate) async fn keep<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => work.await,
        Some(deadline) => timeout_at(deadline, work)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer by the deadline"))),
    }
}
