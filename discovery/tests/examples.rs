//! The examples run and show what they promise.

#![cfg(feature = "consul")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{env, path::PathBuf, process::Stdio, sync::OnceLock, time::Duration};

use testkit::{Consul, Process, Signal};
use tokio::{process::Command, time::timeout};

/// Far longer than any example runs.
const LIMIT: Duration = Duration::from_secs(60);

/// Builds the examples, which is quick if that has been done, and gives the path of one.
fn path(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        // The whole workspace, so that the features are those of the tests.
        let built = testkit::cargo()
            .args(["build", "--locked", "--quiet", "--workspace"])
            .args(["--all-features", "--examples"])
            .status()
            .unwrap();
        assert!(built.success());
        // This program lies in target/PROFILE/deps, the examples in target/PROFILE/examples.
        let program = env::current_exe().unwrap();
        program.ancestors().nth(2).unwrap().join("examples")
    });
    folder.join(name)
}

/// Runs an example to its end and returns what it printed.
async fn run(name: &str, argument: &[&str]) -> String {
    let mut command = Command::new(path(name));
    command
        .args(argument)
        .kill_on_drop(true)
        .stdin(Stdio::null());
    let output = timeout(LIMIT, command.output()).await;
    let output = output.expect("the example does not end").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn examples_without_a_registry_server_show_their_results() {
    for (name, expected) in [
        ("quickstart", &["\" a b \" -> \"ab\" by 127.0.0.1:"][..]),
        (
            "layers",
            &[
                "gzip: \"ab\"",
                "calling /pb.Trim/TrimSpace",
                "layers: \"cd\"",
            ],
        ),
        ("streaming", &["Serving\nNotServing\nServing\n"]),
        (
            "call_options",
            &[
                "pinned: stable\ncanary: canary\nwithout a canary: answered: true\n",
                "NoInstances",
            ],
        ),
        (
            "http",
            &[
                "200 OK: order 4 by 127.0.0.1:",
                " received 4\n",
                " received 1\n",
            ],
        ),
        ("custom_balancer", &["127.0.0.1:"]),
        ("custom_registry", &["\"ab\""]),
        ("unix_socket", &["\"ab\" over /"]),
        ("two_services", &["trimmed: \"ab\"", "health: Serving"]),
        (
            "errors",
            &[
                "AttemptsExhausted: ",
                "Ready",
                "look at the instances: ",
                "TransientFailure",
            ],
        ),
    ] {
        let output = run(name, &[]).await;
        for part in expected {
            assert!(
                output.contains(part),
                "{name} printed {output:?}, not {part:?}"
            );
        }
    }
}

#[tokio::test]
async fn examples_with_consul_register_call_and_deregister() {
    let consul = Consul::start().await.unwrap();
    let url = format!("consul://{}", consul.address());
    let output = run("consul", &[&url]).await;
    assert_eq!(output, "\"ab\"\nno instance is registered any more\n");

    let path = path("register_server");
    let mut server = Process::spawn(&path, [&url]).unwrap();
    let line = server.stdout_line("serving ", LIMIT).await.unwrap();
    let id = line.trim().strip_prefix("serving ").unwrap().to_owned();
    let registered = format!("/v1/agent/service/{id}");
    testkit::eventually("registered", LIMIT, async || consul.get(&registered).await)
        .await
        .unwrap();
    server.signal(Signal::SIGINT).unwrap();
    assert!(server.exit(LIMIT).await.unwrap().success());
    assert!(
        server.stdout().contains("ended in order"),
        "{}",
        server.stderr()
    );
    assert!(consul.get(&registered).await.is_err());
}
