//! The metrics of the two servers. The `discovery` crate adds those of the channel, whose names begin
//! with `discovery_` or `grpc_client_`.
//!
//! Names and labels are those of Prometheus's HTTP conventions and of go-grpc-prometheus, so that
//! existing dashboards show this service too.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{LazyLock, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
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

/// Counts and times an HTTP request.
pub(crate) fn http(method: &Method, route: &'static str, status: StatusCode, elapsed: Duration) {
    // Clients may invent methods; only the standard ones are labels.
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
    HTTP_SERIES.with((method, route, status.as_u16()), http_series, |series| {
        series.count.increment(1);
        series.time.record(elapsed);
    });
}

/// Counts and times a gRPC call.
pub(crate) fn grpc(method: &'static str, code: Code, elapsed: Duration) {
    GRPC_SERIES.with((method, code as i32), grpc_series, |series| {
        series.count.increment(1);
        series.time.record(elapsed);
    });
}

/// The counter and the histogram of one combination of labels.
struct Series {
    count: Counter,
    time: Histogram,
}

/// Series that were used before: a lookup in the recorder costs several times as much.
struct SeriesCache<K>(LazyLock<RwLock<HashMap<K, Series>>>);

static HTTP_SERIES: SeriesCache<(&str, &str, u16)> = SeriesCache(LazyLock::new(RwLock::default));
static GRPC_SERIES: SeriesCache<(&str, i32)> = SeriesCache(LazyLock::new(RwLock::default));

impl<K: Copy + Eq + Hash> SeriesCache<K> {
    fn with(&self, key: K, make: fn(K) -> Series, add: impl FnOnce(&Series)) {
        if let Some(series) = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return add(series);
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        add(all.entry(key).or_insert_with(|| make(key)));
    }
}

fn http_series((method, route, status): (&'static str, &'static str, u16)) -> Series {
    let status = status.to_string();
    Series {
        count: counter!(HTTP_REQUESTS, "method" => method, "route" => route, "status" => status),
        time: histogram!(HTTP_DURATION, "method" => method, "route" => route),
    }
}

fn grpc_series((method, code): (&'static str, i32)) -> Series {
    const SERVICE: &str = "pb.Add";
    Series {
        count: counter!(
            GRPC_HANDLED,
            "grpc_type" => "unary",
            "grpc_service" => SERVICE,
            "grpc_method" => method,
            "grpc_code" => name(Code::from_i32(code)),
        ),
        time: histogram!(
            GRPC_DURATION,
            "grpc_type" => "unary",
            "grpc_service" => SERVICE,
            "grpc_method" => method,
        ),
    }
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
