//! `POST /sum` and `POST /concat` with JSON, `/metrics`, `/healthz` and `/readyz`.
//!
//! A business error is status 200 with `err` beside `v`; everything else that goes wrong has its own
//! status and the body `{"err": "..."}`.

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, MatchedPath, Request, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use discovery::{Channel, chain};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::{
    deadline, grpc, metrics,
    service::{self, AddService, BusinessError},
};

/// What the operator's pages tell.
#[derive(Clone)]
pub(crate) struct Outlook {
    pub(crate) channel: Channel,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) recorder: PrometheusHandle,
}

/// All routes, as the server takes them.
pub(crate) fn routes(service: Arc<AddService>, outlook: Outlook, max_body: usize) -> Router {
    let operator = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(outlook);
    Router::new()
        .route("/sum", post(sum))
        .route("/concat", post(concat))
        .with_state(service)
        .merge(operator)
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take that method",
            )
        })
        .layer(middleware::from_fn(measured))
        .layer(DefaultBodyLimit::max(max_body))
}

/// Missing fields are zero values, as in Go; unknown ones are passed over.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct SumBody {
    a: i64,
    b: i64,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct ConcatBody {
    a: String,
    b: String,
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
    State(service): State<Arc<AddService>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Reply<i64>>, Failure> {
    service.admit()?;
    deadline::of(&headers)?;
    let SumBody { a, b } = parse(body)?;
    Ok(Json(service::sum(a, b).into()))
}

async fn concat(
    State(service): State<Arc<AddService>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    service.admit()?;
    let deadline = deadline::of(&headers)?;
    let ConcatBody { a, b } = parse(body)?;
    let joined = deadline::keep(deadline, service.concat(a, b, deadline)).await?;
    let instances = [(grpc::INSTANCE, joined.instances)];
    Ok((instances, Json(Reply::from(joined.result))).into_response())
}

/// Reads a JSON body, whatever the content type says: curl and Go's clients often say nothing true.
fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Failure> {
    let body = body.map_err(|rejection| Failure {
        status: rejection.status(),
        reason: rejection.body_text(),
    })?;
    // serde reads a list into a struct as well; the contract knows objects only.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "the body is not a JSON object",
        ));
    }
    serde_json::from_slice(&body).map_err(|error| Failure {
        status: StatusCode::BAD_REQUEST,
        reason: format!("the body is not what this method takes: {error}"),
    })
}

async fn show_metrics(State(outlook): State<Outlook>) -> Response {
    let content_type = [("content-type", "text/plain; version=0.0.4")];
    (content_type, outlook.recorder.render()).into_response()
}

/// Whether requests that need a trim instance can be served.
async fn ready(State(outlook): State<Outlook>) -> Result<String, Failure> {
    let unavailable = |reason: String| Failure {
        status: StatusCode::SERVICE_UNAVAILABLE,
        reason,
    };
    if *outlook.stopping.borrow() {
        return Err(unavailable("shutting down".to_owned()));
    }
    let status = outlook.channel.status();
    if status.ready > 0 {
        return Ok(format!(
            "ready: {} of {} instances\n",
            status.ready, status.instances
        ));
    }
    let registry = status
        .registry_error
        .map_or_else(String::new, |error| format!("; {}", chain(&*error)));
    Err(unavailable(format!(
        "no trim instance is connected ({} known){registry}",
        status.instances
    )))
}

/// What went wrong, as HTTP tells it.
struct Failure {
    status: StatusCode,
    reason: String,
}

impl Failure {
    fn new(status: StatusCode, reason: &str) -> Self {
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

/// Counts and times every request under its route, never under a path that a caller made up.
async fn measured(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let response = next.run(request).await;
    metrics::http(&method, route, response.status(), begun.elapsed());
    response
}
