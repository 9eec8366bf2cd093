//! `call` against real servers: by both versions of reflection, with attempts, headers and error details.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{net::SocketAddr, process::Stdio};

use proto::{
    TrimRequest, TrimResponse,
    trim_server::{Trim, TrimServer},
};
use serde_json::json;
use support::{LIMIT, binary, listed_trim, run};
use tempfile::TempDir;
use testkit::{Process, TrimService, eventually, free_ports};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

const METHOD: &str = "pb.Trim/TrimSpace";

/// A trim service with a fault, which registers in a folder of its own.
async fn faulty(fault: &str) -> (TrimService, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded://{}", folder.path().display());
    let trim = listed_trim(&["--registry", &url, "--fault", fault]).await;
    (trim, folder)
}

/// A server that describes itself by the older version of reflection only, refuses an empty text with
/// details, and answers with the header `x-tenant` and the text.
async fn old_server() -> SocketAddr {
    struct Old;

    #[tonic::async_trait]
    impl Trim for Old {
        async fn trim_space(
            &self,
            request: Request<TrimRequest>,
        ) -> Result<Response<TrimResponse>, Status> {
            let tenant = request.metadata().get("x-tenant").cloned();
            let text = request.into_inner().s;
            if text.is_empty() {
                let details = ErrorDetails::with_bad_request_violation("s", "is empty");
                return Err(Status::with_error_details(
                    Code::InvalidArgument,
                    "no text",
                    details,
                ));
            }
            let mut response = Response::new(TrimResponse { s: text });
            if let Some(tenant) = tenant {
                response.metadata_mut().insert("x-seen-tenant", tenant);
            }
            Ok(response)
        }
    }

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .build_v1alpha()
        .unwrap();
    tokio::spawn(
        Server::builder()
            .add_service(reflection)
            .add_service(TrimServer::new(Old))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    address
}

#[tokio::test]
async fn a_call_is_made_in_json_and_its_attempts_are_shown() {
    let (good, _one) = faulty("latency=1ms,rate=1").await;
    let (bad, _two) = faulty("error=unavailable,rate=1").await;
    let request = json!({"s": " a b "}).to_string();
    let both = format!("static://{},{}", good.grpc, bad.grpc);
    let line = ["call", &both, "trim", METHOD, &request, "-v"];
    // The first instance of the rotation differs from run to run.
    let look = async || {
        let found = run(&line).await;
        found.says(
            0,
            &["/pb.Trim/TrimSpace in ", &good.grpc.to_string(), "  OK"],
        );
        assert_eq!(found.json(), json!({"s": "ab"}));
        let attempt = format!("  1. {}  UNAVAILABLE  ", bad.grpc);
        (found.stderr.contains(&attempt) && found.stderr.contains("2. ")).then_some(())
    };
    eventually("a run whose first attempt fails", LIMIT, look)
        .await
        .unwrap();

    // The exit code is 64 and the status code: 14 is UNAVAILABLE, 4 is DEADLINE_EXCEEDED.
    let url = format!("static://{}", bad.grpc);
    let found = run(&["call", &url, "trim", METHOD, "-v", "--attempts", "2"]).await;
    found.says(78, &["error: UNAVAILABLE: ", "  1. ", "  2. "]);
    assert!(!found.stderr.contains("  3. "), "{found:#?}");
    let (slow, _three) = faulty("latency=2s,rate=1").await;
    let url = format!("static://{}", slow.grpc);
    let found = run(&["call", &url, "trim", METHOD, "--deadline", "300ms"]).await;
    found.says(68, &["error: DEADLINE_EXCEEDED: "]);
}

#[tokio::test]
async fn headers_details_and_the_older_reflection_work() {
    let url = format!("static://{}", old_server().await);
    let found = run(&[
        "call",
        &url,
        "t",
        METHOD,
        r#"{"s":"x"}"#,
        "-v",
        "-H",
        "x-tenant: blue",
    ])
    .await;
    found.says(0, &["x-seen-tenant: blue"]);
    let found = run(&["call", &url, "t", METHOD]).await;
    found.says(
        67,
        &[
            "error: INVALID_ARGUMENT: no text",
            "\"@type\": \"type.googleapis.com/google.rpc.BadRequest\"",
            "\"description\": \"is empty\"",
        ],
    );
}

#[tokio::test]
async fn the_request_can_come_from_standard_input() {
    let url = format!("static://{}", old_server().await);
    let mut process = Command::new(binary())
        .args(["call", &url, "t", "/pb.Trim/TrimSpace", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    input.write_all(b"{\"s\":\n\"from stdin\"}").await.unwrap();
    drop(input);
    let output = tokio::time::timeout(LIMIT, process.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("from stdin")
    );
}

#[tokio::test]
async fn what_cannot_be_called_is_explained() {
    let url = format!("static://{}", old_server().await);
    let [port] = free_ports().unwrap();
    let nobody = format!("static://127.0.0.1:{port}");
    for (url, method, request, reason) in [
        (
            &url,
            METHOD,
            r#"{"t":1}"#,
            "the request is not a pb.TrimRequest in JSON",
        ),
        (&url, METHOD, "{} {}", "trailing characters"),
        (
            &url,
            "pb.Trim/Trim",
            "{}",
            "pb.Trim has no method Trim; it has TrimSpace",
        ),
        (
            &url,
            "pb.Trom/TrimSpace",
            "{}",
            "have no service pb.Trom; they offer ",
        ),
        (
            &url,
            "pb.TrimRequest/s",
            "{}",
            "pb.TrimRequest is not a service",
        ),
        (
            &url,
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "{}",
            "is a stream; only unary methods can be called",
        ),
        (
            &nobody,
            METHOD,
            "{}",
            "the reflection failed: Unavailable: ",
        ),
    ] {
        let found = run(&["call", url, "t", method, request]).await;
        found.says(2, &["error: ", reason]);
    }
    // The process under test is not needed for a wrong line.
    let mut process = Process::spawn(binary(), ["call", &url]).unwrap();
    support::ended(&mut process)
        .await
        .says(64, &["Usage: discovery call"]);
}
