//! `/metrics`, `/healthz` and `/readyz`.

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use bootstrap::Stage;
use discovery::{Channel, chain, metrics::grpc_text};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::{error_detail::ErrorDetail, failure::Failure};

pub(crate) const METRICS: &str = "/metrics";
pub(crate) const HEALTHZ: &str = "/healthz";
pub(crate) const READYZ: &str = "/readyz";

/// The state that the routes show.
#[derive(Clone)]
pub(crate) struct Readiness {
    pub(crate) channel: Channel,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) recorder: PrometheusHandle,
    pub(crate) detail: ErrorDetail,
}

/// All routes.
pub(crate) fn routes(readiness: Readiness) -> Router {
    Router::new()
        .route(METRICS, get(show_metrics))
        .route(HEALTHZ, get(|| async { "ok\n" }))
        .route(READYZ, get(ready))
        .with_state(readiness)
}

async fn show_metrics(State(readiness): State<Readiness>) -> Response {
    let content_type = [("content-type", "text/plain; version=0.0.4")];
    let text = readiness.recorder.render() + &grpc_text();
    (content_type, text).into_response()
}

/// Ready if a trim instance is connected or, without eager connections, can be connected to by a call.
async fn ready(State(readiness): State<Readiness>) -> Result<String, Failure> {
    let unavailable = |reason: String| Failure {
        status: StatusCode::SERVICE_UNAVAILABLE,
        reason,
    };
    if *readiness.stage.borrow() != Stage::Serving {
        return Err(unavailable("shutting down".to_owned()));
    }
    let status = readiness.channel.status();
    if status.available > 0 {
        return Ok(format!(
            "ready: {} of {} instances\n",
            status.available, status.instances
        ));
    }
    let registry = status.registry_error.map_or_else(String::new, |error| {
        readiness.detail.reason(|| format!("; {}", chain(&*error)))
    });
    Err(unavailable(format!(
        "no trim instance is connected ({} known){registry}",
        status.instances
    )))
}
