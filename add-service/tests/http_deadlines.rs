//! HTTP 504: the caller's deadline, and the service's own where the caller gives none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use crate::support::{Http, QUICK, add_alone, add_over, read_until, send, trims};

#[tokio::test]
async fn past_the_deadline_it_is_504() {
    let trims = trims(2, &["--fault", "latency=60s"]).await;
    let add = add_over(&trims, &["--retry-timeout", "20s"]).await;
    let http = Http::new(&add);
    http.until_ready(2).await;
    let begun = Instant::now();
    let request = http
        .request("POST", "/concat")
        .header("grpc-timeout", "200m");
    let answer = send(request.body(r#"{"a":"x","b":"y"}"#)).await;
    let took = begun.elapsed();
    assert_eq!(answer.status, 504, "{answer:?}");
    answer.reason();
    assert!(
        took >= Duration::from_millis(200) && took < QUICK,
        "{took:?}"
    );

    // Without a deadline of the caller, the service's own applies.
    let add = add_over(&trims, &["--retry-timeout", "300ms"]).await;
    let http = Http::new(&add);
    http.until_ready(2).await;
    let begun = Instant::now();
    let answer = http.post("/concat", r#"{"a":"x","b":"y"}"#).await;
    let took = begun.elapsed();
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(
        took >= Duration::from_millis(250) && took < QUICK,
        "{took:?}"
    );
}

#[tokio::test]
async fn a_deadline_that_is_over_at_once_is_504() {
    let add = add_alone(&[]).await;
    let http = Http::new(&add);
    for path in ["/sum", "/concat"] {
        let request = http.request("POST", path).header("grpc-timeout", "0S");
        let answer = send(request.body("{}")).await;
        assert_eq!(answer.status, 504, "{answer:?}");
        answer.reason();
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_bounded_by_the_deadline() {
    let add = add_alone(&[]).await;
    for path in ["/sum", "/concat"] {
        let mut stream = TcpStream::connect(add.http).await.unwrap();
        let half = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ngrpc-timeout: 100m\r\ncontent-length: 9\r\n\r\n{{"
        );
        stream.write_all(half.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "}").await;
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert!(answer.contains("{\"err\":\""), "{answer}");
    }
}
