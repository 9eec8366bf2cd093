//! `POST /sum` and `POST /concat` with JSON, and what all routes have in common.
//!
//! A business error is status 200 with `err` beside `v`. Every other error has its own status and the
//! body `{"err": "..."}`.

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use bootstrap::spans;
use discovery::limit::Limiter;
use serde::Serialize;
use tracing::{Instrument as _, Span};

use crate::{
    caller::keep,
    failure::Failure,
    grpc,
    json::Operands,
    metrics,
    operator::{HEALTHZ, METRICS, READYZ},
    page,
    request::{deadline, parse, read},
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
/// The methods of the service. Requests over the limit are refused.
pub(crate) fn methods(
    service: Arc<AddService>,
    max_body: usize,
    limiter: Option<Arc<Limiter>>,
) -> Router {
    let calls = Calls { service, max_body };
    let methods = Router::new()
        .route(SUM, post(sum))
        .route(CONCAT, post(concat))
        .with_state(calls);
    match limiter {
        Some(limiter) => methods.route_layer(middleware::from_fn_with_state(limiter, limited)),
        None => methods,
    }
}

/// Answers requests over the limit with 503 before they are read.
async fn limited(State(limiter): State<Arc<Limiter>>, request: Request, next: Next) -> Response {
    let Some(_permit) = limiter.try_acquire() else {
        let reason = "too many requests at a time; try again later";
        let retry_after = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
        let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, reason);
        return (retry_after, failure).into_response();
    };
    next.run(request).await
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

/// Counts and times every request under its route, never under a path that a caller chose.
async fn measured(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| ROUTES.into_iter().find(|route| *route == path.as_str()))
        .unwrap_or("none");
    let method = request.method().clone();
    let span = if matches!(route, SUM | CONCAT) {
        spans::http(route, &request)
    } else {
        Span::none()
    };
    let response = next.run(request).instrument(span.clone()).await;
    spans::answered(&span, response.status());
    metrics::http(&method, route, response.status(), begun.elapsed());
    response
}
