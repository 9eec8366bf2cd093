//! The behaviour of the trim service's binary towards its callers and its operator.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::{net::TcpListener, time::Duration};

use serde_json::Value;
use testkit::{Process, Signal, eventually, service_binary, trim_service};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{LIMIT, connect, trim};

/// Nothing listens on port 1. These tests do not need a registry.
const NO_CONSUL: [&str; 2] = ["--consul", "127.0.0.1:1"];

async fn run(flags: &[&str]) -> (Option<i32>, Process) {
    let binary = service_binary("trim-service").await.unwrap();
    let mut process = Process::spawn(&binary, flags).unwrap();
    let status = process.exit(LIMIT).await.unwrap();
    (status.code(), process)
}

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let mut client = HealthClient::new(channel.clone());
    let service = service.to_owned();
    let response = client.check(HealthCheckRequest { service }).await.unwrap();
    response.into_inner().status()
}

#[tokio::test]
async fn trims_spaces_and_nothing_else() {
    let service = trim_service(&NO_CONSUL).await.unwrap();
    let channel = connect(service.grpc).await;
    for (given, expected) in [
        ("", ""),
        ("   ", ""),
        (" 1 0 ", "10"),
        ("a\tb\n c\u{a0}d", "a\tb\nc\u{a0}d"),
        ("ä ö \u{1f600} ü", "äö\u{1f600}ü"),
    ] {
        let answer = trim(channel.clone(), given).await.unwrap();
        assert_eq!(answer, expected, "{given:?}");
    }
    let long = "x ".repeat(500_000);
    assert_eq!(trim(channel, &long).await.unwrap().len(), 500_000);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let service = trim_service(&NO_CONSUL).await.unwrap();
    let channel = connect(service.grpc).await;
    let mut add = proto::add_client::AddClient::new(channel);
    let status = add.sum(proto::SumRequest { a: 1, b: 2 }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn a_fault_is_met_by_calls_and_not_by_health_checks() {
    let flags = [&NO_CONSUL[..], &["--fault", "error=internal"]].concat();
    let service = trim_service(&flags).await.unwrap();
    let channel = connect(service.grpc).await;
    let status = trim(channel.clone(), "a").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Internal);
    assert_eq!(health(&channel, "pb.Trim").await, ServingStatus::Serving);
}

#[tokio::test]
async fn health_says_serving_until_a_signal_comes() {
    let flags = [&NO_CONSUL[..], &["--drain", "8s"]].concat();
    let mut service = trim_service(&flags).await.unwrap();
    let channel = connect(service.grpc).await;
    for name in ["", "pb.Trim"] {
        assert_eq!(
            health(&channel, name).await,
            ServingStatus::Serving,
            "{name:?}"
        );
    }
    let unknown = HealthCheckRequest {
        service: "pb.Add".to_owned(),
    };
    let status = HealthClient::new(channel.clone())
        .check(unknown)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);

    service.process.signal(Signal::SIGTERM).unwrap();
    for name in ["", "pb.Trim"] {
        let look = async || match health(&channel, name).await {
            ServingStatus::NotServing => Ok(()),
            other => Err(other),
        };
        eventually("not serving", Duration::from_secs(2), look)
            .await
            .unwrap();
    }
    assert_eq!(service.process.exit(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn reflection_lists_the_services_that_it_serves() {
    let service = trim_service(&NO_CONSUL).await.unwrap();
    let channel = connect(service.grpc).await;
    let listed = testkit::reflected_services(channel).await.unwrap();
    for services in listed {
        assert_eq!(services, ["pb.Trim", "grpc.health.v1.Health"]);
    }
}

#[tokio::test]
async fn a_bad_flag_exits_with_2_and_names_it() {
    for (flag, value) in [
        ("--port", "70000"),
        ("--ip", "0.0.0.0"),
        ("--listen", "localhost"),
        ("--check", "http"),
        ("--check-interval", "5"),
        ("--drain", "-1s"),
        ("--fault", "latency"),
        ("--meta", "novalue"),
        ("--registry", "gopher://x"),
        ("--log-level", "loud"),
        ("--no-such-flag", "1"),
    ] {
        let (code, process) = run(&[&format!("{flag}={value}")]).await;
        assert_eq!(code, Some(2), "{flag} {value}");
        let error = process.stderr();
        assert!(error.contains(flag) && error.contains("--help"), "{error}");
        assert_eq!(process.stdout(), "", "{flag} {value}");
    }
}

#[tokio::test]
async fn a_bad_variable_exits_with_2_and_names_its_flag() {
    let binary = service_binary("trim-service").await.unwrap();
    let mut process = Process::spawn_with(&binary, [""; 0], [("TRIM_DRAIN", "soon")]).unwrap();
    assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(2));
    assert!(process.stderr().contains("--drain"), "{}", process.stderr());
}

#[tokio::test]
async fn help_tells_every_flag_with_its_variable() {
    let (code, process) = run(&["--help"]).await;
    assert_eq!(code, Some(0));
    let help = process.stdout();
    for (flag, variable) in [
        ("--port", "TRIM_PORT"),
        ("--listen", "TRIM_LISTEN"),
        ("--ip", "TRIM_IP"),
        ("--drain", "TRIM_DRAIN"),
        ("--fault", "TRIM_FAULT"),
        ("--max-connections", "TRIM_MAX_CONNECTIONS"),
        ("--name", "TRIM_NAME"),
        ("--tag", "TRIM_TAGS"),
        ("--meta", "TRIM_META"),
        (
            "--max-connections-per-peer",
            "TRIM_MAX_CONNECTIONS_PER_PEER",
        ),
        ("--max-streams", "TRIM_MAX_STREAMS"),
        ("--weight", "TRIM_WEIGHT"),
        ("--check", "TRIM_CHECK"),
        ("--check-service", "TRIM_CHECK_SERVICE"),
        ("--check-interval", "TRIM_CHECK_INTERVAL"),
        ("--check-timeout", "TRIM_CHECK_TIMEOUT"),
        ("--deregister-after", "TRIM_DEREGISTER_AFTER"),
        ("--tls-cert", "TRIM_TLS_CERT"),
        ("--tls-key", "TRIM_TLS_KEY"),
        ("--tls-client-ca", "TRIM_TLS_CLIENT_CA"),
        ("--tls-client-auth", "TRIM_TLS_CLIENT_AUTH"),
        ("--register", "TRIM_REGISTER"),
        ("--concurrency-limit", "TRIM_CONCURRENCY_LIMIT"),
        ("--consul", "CONSUL_HTTP_ADDR"),
        ("--registry", "REGISTRY_URL"),
        ("--log-level", "LOG_LEVEL"),
        ("--log-format", "LOG_FORMAT"),
    ] {
        let usage = format!("{flag} <");
        let (_, after) = help
            .split_once(&usage)
            .unwrap_or_else(|| panic!("no {flag}: {help}"));
        let about = after.split("\n      --").next().unwrap_or_default();
        assert!(
            about.contains(variable),
            "{flag} does not name {variable}: {about}"
        );
    }
    // The list above is complete.
    let flags = help.matches("\n      --").count();
    assert_eq!(flags, 27, "{help}");
    let (code, process) = run(&["--version"]).await;
    assert_eq!(
        (code, process.stdout()),
        (Some(0), "trim-service 0.1.0\n".to_owned())
    );
}

#[tokio::test]
async fn port_0_takes_a_free_port_and_prints_it() {
    let one = trim_service(&[&NO_CONSUL[..], &["--port", "0"]].concat())
        .await
        .unwrap();
    let other = trim_service(&[&NO_CONSUL[..], &["--port", "0"]].concat())
        .await
        .unwrap();
    assert_ne!(one.grpc.port(), 0);
    assert_ne!(one.grpc, other.grpc);
    assert_eq!(
        one.process.stdout(),
        format!(
            "trim-service listening grpc={} id=trim_service-127.0.0.1-{}\n",
            one.grpc,
            one.grpc.port()
        )
    );
}

#[tokio::test]
async fn a_registry_that_only_lists_is_an_error_with_what_was_tried_and_the_flags_to_change() {
    for (url, registry) in [
        ("static://127.0.0.1:1", "the static list"),
        ("dns:///trim.example", "dns:///trim.example"),
        ("dns+a:///trim.example:1", "dns+a:///trim.example:1"),
    ] {
        let flags = ["--listen=127.0.0.1", "--port=0", "--registry", url];
        let (code, process) = run(&flags).await;
        let said = process.stderr();
        assert_eq!(code, Some(1), "{said}");
        let tried = format!("{registry} cannot register trim_service-127.0.0.1-");
        for part in [
            &*tried,
            "only lists instances",
            "--registry",
            "--register false",
        ] {
            assert!(said.contains(part), "{part:?} is missing: {said}");
        }
    }
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    let (code, process) = run(&["--listen", "127.0.0.1", "--port", &port]).await;
    assert_eq!(code, Some(1));
    let error = process.stderr();
    assert!(
        error.contains(&address.to_string())
            && error.contains("--port")
            && error.contains("in use"),
        "{error}"
    );
    assert_eq!(process.stdout(), "");
}

#[tokio::test]
async fn json_logs_are_one_object_a_line_on_standard_error() {
    let flags = [
        "--log-format",
        "json",
        "--log-level",
        "debug",
        "--drain",
        "100ms",
    ];
    let mut service = trim_service(&[&NO_CONSUL[..], &flags].concat())
        .await
        .unwrap();
    service
        .process
        .stderr_line("not registered", LIMIT)
        .await
        .unwrap();
    trim(connect(service.grpc).await, "a b").await.unwrap();
    service.process.signal(Signal::SIGINT).unwrap();
    assert_eq!(service.process.exit(LIMIT).await.unwrap().code(), Some(0));
    let logs = service.process.stderr();
    let lines: Vec<Value> = logs
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
    }
    let logged = |message: &str| lines.iter().any(|line| line["message"] == message);
    assert!(
        logged("trimmed") && logged("all requests finished"),
        "{logs}"
    );
    assert_eq!(service.process.stdout().lines().count(), 1);
}

#[tokio::test]
async fn nothing_is_logged_where_logs_are_off() {
    let flags = ["--log-level", "off", "--drain", "100ms"];
    let mut service = trim_service(&[&NO_CONSUL[..], &flags].concat())
        .await
        .unwrap();
    service.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(service.process.exit(LIMIT).await.unwrap().code(), Some(0));
    assert_eq!(service.process.stderr(), "");
}
