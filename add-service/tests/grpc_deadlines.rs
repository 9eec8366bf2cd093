//! `grpc-timeout` on both gRPC servers: malformed, over at once, and over while a request arrives or
//! an answer is sent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;

use tonic::Code;

use crate::support::{RawCall, add_alone, trims};

/// A request without fields.
const EMPTY: &[u8] = b"\0\0\0\0\0";

async fn ends(address: SocketAddr, path: &str, timeout: &str, request: &[u8]) -> (Code, String) {
    let call = RawCall::begin(address, path, &[("grpc-timeout", timeout)]).await;
    let status = call.part(request).end().status().await;
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn a_deadline_is_validated_and_kept_from_the_headers_on() {
    let add = add_alone(&[]).await;
    let trim = trims(1, &[]).await.remove(0);
    for (address, path) in [
        (add.grpc, "/pb.Add/Sum"),
        (add.grpc, "/pb.Add/Concat"),
        (trim.grpc, "/pb.Trim/TrimSpace"),
        (trim.grpc, "/grpc.health.v1.Health/Check"),
    ] {
        for malformed in ["-1S", "soon", "1", "m", "123456789m", "1x", ""] {
            let (code, message) = ends(address, path, malformed, EMPTY).await;
            assert_eq!(code, Code::InvalidArgument, "{path} {malformed}: {message}");
            assert!(message.contains("grpc-timeout"), "{message}");
        }
        for over in ["0S", "0n", "1n"] {
            let (code, message) = ends(address, path, over, EMPTY).await;
            assert_eq!(code, Code::DeadlineExceeded, "{path} {over}: {message}");
        }
        // The rest of the message does not arrive.
        let call = RawCall::begin(address, path, &[("grpc-timeout", "200m")]).await;
        let status = call.part(b"\0\0").status().await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{path}: {status:?}");
    }
    let (code, message) = ends(trim.grpc, "/pb.Trim/TrimSpace", "20S", EMPTY).await;
    assert_eq!(code, Code::Ok, "{message}");
}

#[tokio::test]
async fn a_slow_call_and_a_stream_end_at_the_deadline() {
    let trim = trims(1, &["--fault", "latency=60s"]).await.remove(0);
    for path in ["/pb.Trim/TrimSpace", "/grpc.health.v1.Health/Watch"] {
        let (code, message) = ends(trim.grpc, path, "200m", EMPTY).await;
        assert_eq!(code, Code::DeadlineExceeded, "{path}: {message}");
    }
}
