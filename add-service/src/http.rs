//! `POST /sum` and `POST /concat` with JSON, and what all routes have in common.
//!
//! A business error is status 200 with `err` beside `v`. Every other error has its own status and the
//! body `{"err": "..."}`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes, HttpBody as _},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use discovery::Deadline;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::{
    caller::keep,
    grpc,
    json::{Field, Operands},
    metrics,
    operator::{HEALTHZ, METRICS, READYZ},
    page,
    service::{self, AddService, BusinessError},
};

const SUM: &str = "/sum";
const CONCAT: &str = "/concat";
/// The paths as labels.
const ROUTES: [&str; 11] = [
    SUM,
    CONCAT,
    METRICS,
    HEALTHZ,
    READYZ,
    page::PAGE,
    page::ASSET,
    page::CHANNEL,
    page::LIVE,
    page::TRY_SUM,
    page::TRY_CONCAT,
];
/// A client must send a request's body within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of bytes that are read and discarded of a body that is too long. Some clients read
/// the answer only after they have sent everything.
const DISCARDED: usize = 64 << 20;

/// The methods of the service.
pub(crate) fn methods(service: Arc<AddService>, max_body: usize) -> Router {
    let calls = Calls { service, max_body };
    Router::new()
        .route(SUM, post(sum))
        .route(CONCAT, post(concat))
        .with_state(calls)
}

/// All routes of a port: these, an error for everything else, and the metrics of requests.
pub(crate) fn port(routes: Router) -> Router {
    routes
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not support that method",
            )
        })
        .layer(middleware::from_fn(measured))
}

/// The state of the handlers.
#[derive(Clone)]
struct Calls {
    service: Arc<AddService>,
    max_body: usize,
}

#[derive(Serialize)]
struct Reply<V> {
    v: V,
    #[serde(skip_serializing_if = "Option::is_none")]
    err: Option<String>,
}

impl<V: Default> From<Result<V, BusinessError>> for Reply<V> {
    fn from(result: Result<V, BusinessError>) -> Self {
        match result {
            Ok(v) => Self { v, err: None },
            Err(error) => Self {
                v: V::default(),
                err: Some(error.to_string()),
            },
        }
    }
}

async fn sum(
    State(Calls { service, max_body }): State<Calls>,
    request: Request,
) -> Result<Json<Reply<i64>>, Failure> {
    service.admit()?;
    let deadline = deadline(request.headers())?;
    let Operands::<i64> { a, b } = parse(&read(request, max_body, deadline).await?)?;
    Ok(Json(service::sum(a, b).into()))
}

async fn concat(
    State(Calls { service, max_body }): State<Calls>,
    request: Request,
) -> Result<Response, Failure> {
    service.admit()?;
    let deadline = deadline(request.headers())?;
    let caller = service.caller(request.headers(), deadline);
    let Operands::<String> { a, b } = parse(&read(request, max_body, caller.deadline).await?)?;
    let joined = keep(caller.deadline, service.concat(a, b, caller)).await?;
    let mut response = Json(Reply::from(joined.result)).into_response();
    // Registries accept any ID. One that is not a valid header value is left out.
    if let Ok(instances) = joined.instances.parse::<HeaderValue>() {
        response.headers_mut().insert(grpc::INSTANCE, instances);
    }
    Ok(response)
}

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

/// An error and its HTTP status.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, reason: &str) -> Self {
        Self {
            status,
            reason: reason.to_owned(),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self {
            status: match status.code() {
                Code::InvalidArgument => StatusCode::BAD_REQUEST,
                Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
                Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
            reason: status.message().to_owned(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            err: String,
        }
        (self.status, Json(Body { err: self.reason })).into_response()
    }
}

/// Counts and times every request under its route, never under a path that a caller chose.
async fn measured(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| ROUTES.into_iter().find(|route| *route == path.as_str()))
        .unwrap_or("none");
    let method = request.method().clone();
    let response = next.run(request).await;
    metrics::http(&method, route, response.status(), begun.elapsed());
    response
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
        assert_eq!(tokio::time::Instant::now(), deadline.instant());
    }
}
