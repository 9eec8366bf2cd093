//! Reads a request over HTTP: its deadline, its body within limits, and the operands in it.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
    http::{HeaderMap, StatusCode},
};
use discovery::Deadline;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;
use tonic::Status;

use crate::{
    caller::keep,
    failure::Failure,
    json::{Field, Operands},
};

/// A client must send a request's body within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of bytes that are read and discarded of a body that is too long. Some clients read
/// the answer only after they have sent everything.
const DISCARDED: usize = 64 << 20;

/// The caller's deadline, which counts from the headers on, as on gRPC.
pub(crate) fn deadline(headers: &HeaderMap) -> Result<Option<Deadline>, Status> {
    Deadline::from_headers(headers).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Reads a body up to the size limit, by the caller's deadline and within [`BODY_TIMEOUT`].
pub(crate) async fn read(
    request: Request,
    max_body: usize,
    deadline: Option<Deadline>,
) -> Result<Bytes, Failure> {
    let too_large = |body| {
        tokio::spawn(timeout(BODY_TIMEOUT, discard(body)));
        Err(Failure {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            reason: format!("the body is over {max_body} bytes"),
        })
    };
    let mut body = request.into_body();
    // The length that the client announced, or zero.
    if body.size_hint().lower() > max_body as u64 {
        return too_large(body);
    }
    let whole = timeout(BODY_TIMEOUT, Limited::new(&mut body, max_body).collect());
    match keep(deadline, async { Ok(whole.await) }).await? {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => too_large(body),
        Ok(Err(error)) => Err(Failure {
            status: StatusCode::BAD_REQUEST,
            reason: format!("the body is incomplete: {error}"),
        }),
        Err(_) => Err(Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        )),
    }
}

/// Reads the rest of a body while the answer is sent.
async fn discard(mut body: Body) {
    let mut read = 0;
    while read <= DISCARDED
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Parses JSON. Content-Type is ignored: clients often send a wrong one.
pub(crate) fn parse<T: Field>(body: &[u8]) -> Result<Operands<T>, Failure> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "the body is not a JSON object",
        ));
    }
    serde_json::from_slice(body).map_err(|error| Failure {
        status: StatusCode::BAD_REQUEST,
        reason: format!("the body is not what this method takes: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_an_error() {
        let stalled = || {
            let nothing = tokio_stream::pending::<Result<Bytes, std::io::Error>>();
            Request::new(Body::from_stream(nothing))
        };
        let begun = tokio::time::Instant::now();
        let failure = read(stalled(), 64, None).await.unwrap_err();
        assert_eq!(failure.status, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(begun.elapsed(), BODY_TIMEOUT);

        let deadline = Deadline::after(Duration::from_millis(200));
        let failure = read(stalled(), 64, Some(deadline)).await.unwrap_err();
        assert_eq!(failure.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(tokio::time::Instant::now().into_std(), deadline.instant());
    }
}
