//! `/metrics`: the series that an operator's dashboards read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use testkit::{Consul, add_service, eventually};

use crate::support::{Http, LIMIT, connect};

/// The value of the series with this name and these labels, in any order.
fn series(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = text.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// The series in `/metrics` after the calls of the test below.
const SHOWN: [(&str, &[&str], f64); 12] = [
    (
        "http_requests_total",
        &["method=\"POST\"", "route=\"/concat\"", "status=\"200\""],
        7.0,
    ),
    (
        "http_requests_total",
        &["route=\"/sum\"", "status=\"400\""],
        1.0,
    ),
    (
        "http_requests_total",
        &["route=\"none\"", "status=\"404\""],
        1.0,
    ),
    (
        "http_request_duration_seconds_count",
        &["route=\"/concat\""],
        7.0,
    ),
    (
        "http_request_duration_seconds_bucket",
        &["route=\"/concat\"", "le=\"+Inf\""],
        7.0,
    ),
    (
        "grpc_server_handled_total",
        &[
            "grpc_service=\"pb.Add\"",
            "grpc_method=\"Sum\"",
            "grpc_code=\"OK\"",
        ],
        1.0,
    ),
    (
        "grpc_server_handling_seconds_count",
        &["grpc_method=\"Sum\""],
        1.0,
    ),
    (
        "discovery_endpoints",
        &["service=\"trim_service\"", "state=\"ready\""],
        1.0,
    ),
    (
        "discovery_calls_total",
        &["service=\"trim_service\"", "outcome=\"ok\""],
        14.0,
    ),
    (
        "discovery_attempts_total",
        &["service=\"trim_service\"", "outcome=\"ok\""],
        14.0,
    ),
    (
        "discovery_retries_total",
        &["service=\"trim_service\""],
        0.0,
    ),
    (
        "discovery_registry_errors_total",
        &["service=\"trim_service\""],
        0.0,
    ),
];

#[tokio::test]
async fn metrics_tell_requests_and_what_discovery_does() {
    let consul = Consul::start().await.unwrap();
    let address = consul.address();
    let trim = testkit::trim_service(&["--consul", &address])
        .await
        .unwrap();
    let add = add_service(&["--consul", &address]).await.unwrap();
    let http = Http::new(&add);
    http.until_ready(1).await;
    for _ in 0..7 {
        assert_eq!(http.post("/concat", r#"{"a":"x"}"#).await.status, 200);
    }
    http.post("/sum", "[").await;
    http.post("/made/up/by/a/caller", "").await;
    let mut grpc = proto::add_client::AddClient::new(connect(add.grpc).await);
    grpc.sum(proto::SumRequest { a: 1, b: 2 }).await.unwrap();

    // The channel publishes its counters once a second.
    let look = async || {
        let answer = http.get("/metrics").await;
        match series(&answer.text, "discovery_calls_total", &["outcome=\"ok\""]) {
            Some(14.0..) => Ok(answer),
            seen => Err(seen),
        }
    };
    let (answer, _) = eventually("calls counted", LIMIT, look).await.unwrap();
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    let text = answer.text;
    for (name, labels, value) in SHOWN {
        let shown = series(&text, name, labels);
        assert_eq!(shown, Some(value), "{name}{labels:?} in\n{text}");
    }
    assert!(!text.contains("made/up"), "a caller's path is a label");
    // Every series has a TYPE line, as Prometheus requires.
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let kind = |name: &str| text.contains(&format!("# TYPE {name} "));
        assert!(kind(name) || family.is_some_and(kind), "{name} has no type");
    }
    drop(trim);
}

#[tokio::test]
async fn metrics_tell_failures() {
    let mut consul = Consul::start().await.unwrap();
    let add = add_service(&["--consul", &consul.address()]).await.unwrap();
    let http = Http::new(&add);
    consul.kill().await.unwrap();
    let look = async || {
        let answer = http.post("/concat", r#"{"a":"x"}"#).await;
        let text = http.get("/metrics").await.text;
        let failures = series(&text, "discovery_failures_total", &["code="]);
        let errors = series(&text, "discovery_registry_errors_total", &[]);
        match (failures, errors) {
            (Some(1.0..), Some(1.0..)) => Ok(()),
            seen => Err((seen, answer)),
        }
    };
    eventually("failures and registry errors counted", LIMIT, look)
        .await
        .unwrap();
}
