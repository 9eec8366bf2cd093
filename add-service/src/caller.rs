//! The caller of a request; the same on gRPC and HTTP.

use std::future::Future;

use discovery::{Deadline, HashKey};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// The caller's deadline and key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The deadline it gave (`grpc-timeout`).
    pub(crate) deadline: Option<Deadline>,
    /// The key that sends its requests to one instance.
    pub(crate) key: Option<HashKey>,
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
    let Some(deadline) = deadline else {
        return work.await;
    };
    let exceeded = || Err(Status::deadline_exceeded("no answer by the deadline"));
    // The work would be polled once.
    if deadline.instant() <= Instant::now().into_std() {
        return exceeded();
    }
    let done = timeout_at(deadline.instant().into(), work).await;
    done.unwrap_or_else(|_| exceeded())
}
