//! The add server: `POST /concat` as the project's add service has it, over plain HTTP to the trim servers.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Request, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use discovery::{
    ServedBy,
    http::{Channel, Rules, status_for},
};
use futures_util::future::try_join;
use http_body_util::{BodyExt as _, Empty};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::interval};
use tower_service::Service as _;

use crate::{Common, stop};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Port to listen on; 0 chooses a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    http_port: u16,
}

/// Interval at which the recorder drops old samples.
const UPKEEP: Duration = Duration::from_secs(5);

pub(crate) async fn serve(args: Args) -> Result<()> {
    let metrics = PrometheusBuilder::new().install_recorder()?;
    // Trimming is safe to repeat after any failure.
    let rules = Rules::new()
        .with_retry_statuses([
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ])
        .with_health_path("/health");
    let channel = Channel::builder(args.common.registry(), "trim_service")
        .rules(rules)
        .build()?;
    let recorder = metrics.clone();
    tokio::spawn(async move {
        let mut due = interval(UPKEEP);
        loop {
            due.tick().await;
            recorder.run_upkeep();
        }
    });
    let app = Router::new()
        .route("/concat", post(concat))
        .route("/metrics", get(async move || metrics.render()))
        .with_state(channel);
    let address = SocketAddr::new(args.common.listen, args.http_port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    println!("http-services listening http={}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async {
            // Without signals it serves until it is killed.
            if stop().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    Ok(())
}

/// A status, and the error that the body names.
type Failure = (StatusCode, String);

async fn concat(State(channel): State<Channel>, body: Bytes) -> Response {
    match answer(channel, &body).await {
        Ok((text, instances)) => (
            [
                ("x-trim-instance", instances),
                ("content-type", "application/json".to_owned()),
            ],
            json!({"v": text}).to_string(),
        )
            .into_response(),
        Err((status, error)) => (
            status,
            [(header::CONTENT_TYPE, "application/json")],
            json!({"err": error}).to_string(),
        )
            .into_response(),
    }
}

/// The joined text, and the instances that have trimmed its parts.
async fn answer(channel: Channel, body: &[u8]) -> Result<(String, String), Failure> {
    let refuse = |error: &str| (StatusCode::BAD_REQUEST, error.to_owned());
    let request: Value =
        serde_json::from_slice(body).map_err(|error| refuse(&error.to_string()))?;
    let text = |name: &str| {
        request[name]
            .as_str()
            .ok_or_else(|| refuse("expected a and b"))
    };
    let (a, b) = try_join(trim(&channel, text("a")?), trim(&channel, text("b")?)).await?;
    Ok((a.0 + &b.0, format!("{},{}", a.1, b.1)))
}

/// The text without spaces, and the instance that has removed them.
async fn trim(channel: &Channel, text: &str) -> Result<(String, String), Failure> {
    let path = format!("/trim/{}", text.replace('%', "%25").replace(' ', "%20"));
    let request = Request::get(path).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let failed = |error: discovery::CallError| (status_for(&error), error.to_string());
    let response = channel.clone().call(request).await.map_err(failed)?;
    let status = response.status();
    let instance = response
        .extensions()
        .get()
        .map(|ServedBy(instance)| instance.id.clone())
        .unwrap_or_default();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(failed)?
        .to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() {
        Ok((text, instance))
    } else {
        let error = format!("{instance} answered {status}: {text}");
        Err((StatusCode::SERVICE_UNAVAILABLE, error))
    }
}
