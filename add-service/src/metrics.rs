//! The metrics of the two servers. The `discovery` crate adds those of the channel, whose names begin
//! with `discovery_`.
//!
//! Names and labels are those of Prometheus's HTTP conventions and of go-grpc-prometheus, so that
//! existing dashboards show this service too.

use std::time::Duration;

use anyhow::Context as _;
use axum::http::{Method, StatusCode};
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tonic::Code;

const HTTP_REQUESTS: &str = "http_requests_total";
const HTTP_DURATION: &str = "http_request_duration_seconds";
const GRPC_HANDLED: &str = "grpc_server_handled_total";
const GRPC_DURATION: &str = "grpc_server_handling_seconds";

/// How often the recorder drops old samples.
const UPKEEP: Duration = Duration::from_secs(5);

/// From half a millisecond, the usual time of a call on a local network.
const BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// Installs the recorder and starts its upkeep. Must be called inside a tokio runtime.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot set up metrics")?;
    describe_counter!(HTTP_REQUESTS, "HTTP requests answered.");
    describe_histogram!(
        HTTP_DURATION,
        Unit::Seconds,
        "Time to answer an HTTP request."
    );
    describe_counter!(GRPC_HANDLED, "gRPC calls answered.");
    describe_histogram!(GRPC_DURATION, Unit::Seconds, "Time to answer a gRPC call.");
    let recorder = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            recorder.run_upkeep();
        }
    });
    Ok(handle)
}

pub(crate) fn http(method: &Method, route: String, status: StatusCode, elapsed: Duration) {
    // Callers may send any method; each label value costs memory.
    let method = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    };
    let status = status.as_u16().to_string();
    counter!(HTTP_REQUESTS, "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    histogram!(HTTP_DURATION, "method" => method, "route" => route).record(elapsed);
}

pub(crate) fn grpc(method: &'static str, code: Code, elapsed: Duration) {
    const SERVICE: &str = "pb.Add";
    counter!(
        GRPC_HANDLED,
        "grpc_type" => "unary",
        "grpc_service" => SERVICE,
        "grpc_method" => method,
        "grpc_code" => name(code),
    )
    .increment(1);
    histogram!(
        GRPC_DURATION,
        "grpc_type" => "unary",
        "grpc_service" => SERVICE,
        "grpc_method" => method,
    )
    .record(elapsed);
}

/// The code as Go prints it, which dashboards expect.
fn name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        // The other names are the same in both languages.
        code => format!("{code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_as_in_go() {
        let names: Vec<String> = (0..17).map(|number| name(Code::from(number))).collect();
        assert_eq!(
            names.join(" "),
            "OK Canceled Unknown InvalidArgument DeadlineExceeded NotFound AlreadyExists \
             PermissionDenied ResourceExhausted FailedPrecondition Aborted OutOfRange \
             Unimplemented Internal Unavailable DataLoss Unauthenticated"
        );
    }
}
