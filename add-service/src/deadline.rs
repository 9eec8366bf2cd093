//! The caller's deadline: `grpc-timeout`, on gRPC and on HTTP alike.

use std::future::Future;

use axum::http::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// When the caller gives up, if it says so.
///
/// # Errors
///
/// `INVALID_ARGUMENT` when the header is malformed.
pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    match discovery::grpc_timeout(headers) {
        // A deadline too far away to be told is none.
        Ok(timeout) => Ok(timeout.and_then(|timeout| Instant::now().checked_add(timeout))),
        Err(value) => Err(Status::invalid_argument(format!(
            "malformed grpc-timeout {value:?}: expected up to 8 digits and one of H M S m u n"
        ))),
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
