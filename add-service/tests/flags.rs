//! Flags, help, exit codes and logs of the add service.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::Value;
use testkit::Signal;

use crate::support::{LIMIT, add_alone};

#[tokio::test]
async fn a_filter_that_the_registry_does_not_have_ends_the_start_with_the_reason() {
    let binary = testkit::service_binary("add-service").await.unwrap();
    for (registry, reason) in [
        (
            "--static=127.0.0.1:1",
            "a list of addresses has no tags; leave out blue",
        ),
        (
            "--registry=static://127.0.0.1:1",
            "a list of addresses has no tags; leave out blue",
        ),
        (
            "--registry=dns:///trim.example.com",
            "DNS does not list a tag; leave out blue",
        ),
    ] {
        let flags = [
            "--listen=127.0.0.1",
            "--http-port=0",
            "--grpc-port=0",
            "--tag=blue",
            registry,
        ];
        let mut process = testkit::Process::spawn(&binary, flags).unwrap();
        assert_eq!(
            process.exit(LIMIT).await.unwrap().code(),
            Some(1),
            "{registry}"
        );
        let said = process.stderr();
        assert!(said.contains(reason), "{registry}: {said}");
    }
}

#[tokio::test]
async fn a_flag_or_variable_that_became_a_field_of_the_trim_config_is_named_with_the_field() {
    let binary = testkit::service_binary("add-service").await.unwrap();
    let mut process = testkit::Process::spawn(&binary, ["--retry-codes=UNAVAILABLE"]).unwrap();
    assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(2));
    let said = process.stderr();
    let tip = "set methodConfig[].discovery.retryCodes in the file of --trim-config";
    assert!(
        said.contains("unexpected argument '--retry-codes' found"),
        "{said}"
    );
    assert!(said.contains(tip), "{said}");

    let command = format!(
        "ADD_EJECT=false exec {} --listen 127.0.0.1 --http-port 0 --grpc-port 0 --static 127.0.0.1:1",
        binary.display()
    );
    let shell = std::path::Path::new("/bin/sh");
    let process = testkit::Process::spawn(shell, ["-c", &command]).unwrap();
    process.stdout_line("listening", LIMIT).await.unwrap();
    let warning =
        "ADD_EJECT has no effect: set discovery.ejection.enabled in the file of --trim-config";
    process.stderr_line(warning, LIMIT).await.unwrap();
}

#[tokio::test]
async fn flags_and_logs_are_as_the_trim_service_s() {
    let binary = testkit::service_binary("add-service").await.unwrap();
    for flag in [
        "--http-port=70000",
        "--balancer=best",
        "--retry-timeout=500",
        "--static=x",
    ] {
        let mut process = testkit::Process::spawn(&binary, [flag]).unwrap();
        assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(2), "{flag}");
        let name = flag.split('=').next().unwrap();
        assert!(process.stderr().contains(name), "{}", process.stderr());
    }
    let mut help = testkit::Process::spawn(&binary, ["--help"]).unwrap();
    assert_eq!(help.exit(LIMIT).await.unwrap().code(), Some(0));
    let help = help.stdout();
    for about in help.split("\n      --").skip(1) {
        // Printing is an action, as help is, and no setting.
        let known = ["[env: ", "CONSUL_HTTP_ADDR", "print-config"];
        assert!(
            known.iter().any(|known| about.contains(known)),
            "no variable: --{about}"
        );
    }
    for flag in [
        "--http-port",
        "--grpc-port",
        "--trim-name",
        "--tag",
        "--balancer",
        "--retry-max",
        "--retry-timeout",
        "--static",
        "--rate-limit",
        "--max-body",
        "--drain",
        "--consul",
        "--registry",
        "--log-format",
    ] {
        assert!(help.contains(&format!("{flag} <")), "{flag}");
    }

    let mut add = add_alone(&["--log-format", "json"]).await;
    let taken = add.http.port().to_string();
    let mut second = testkit::Process::spawn(
        &binary,
        ["--listen=127.0.0.1", "--grpc-port=0", "--http-port", &taken],
    )
    .unwrap();
    assert_eq!(second.exit(LIMIT).await.unwrap().code(), Some(1));
    assert!(
        second.stderr().contains("--http-port"),
        "{}",
        second.stderr()
    );

    add.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(0));
    let logs = add.process.stderr();
    let lines: Vec<Value> = logs
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "all requests finished"),
        "{logs}"
    );
    let announced = format!(
        "add-service listening http={} grpc={} page=http://{}/\n",
        add.http, add.grpc, add.http
    );
    assert_eq!(add.process.stdout(), announced);
}
