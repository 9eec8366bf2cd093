//! The end of the add service after a signal: what it has accepted is answered.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::time::Duration;

use testkit::{Signal, eventually, http_client_builder};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use crate::support::{Http, LIMIT, add_alone, add_over, read_until, trims};

#[tokio::test]
async fn accepted_requests_are_answered_after_the_signal() {
    let trims = trims(2, &["--fault", "latency=500ms"]).await;
    let flags = ["--retry-timeout", "10s", "--drain", "10s"];
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut add = add_over(&trims, &flags).await;
        let http = Http::new(&add);
        http.until_ready(2).await;
        // An idle connection.
        let idle = TcpStream::connect(add.http).await.unwrap();
        // One on HTTP/1.1, accepted as soon as the service asks for the body.
        let mut stream = TcpStream::connect(add.http).await.unwrap();
        let body = r#"{"a":"1 0","b":"2 0"}"#;
        let head = format!(
            "POST /concat HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let asked = read_until(&mut stream, "\r\n\r\n").await;
        assert!(asked.starts_with("HTTP/1.1 100 "), "{asked}");
        // One on HTTP/2, accepted before the next on the same connection is answered.
        let client = http_client_builder().unwrap().http2_prior_knowledge();
        let http2 = http.with(client.build().unwrap());
        assert_eq!(http2.get("/healthz").await.status, 200);
        let mut call = Box::pin({
            let http2 = http2.clone();
            async move { http2.post("/concat", r#"{"a":"x ","b":"y"}"#).await }
        });
        tokio::select! {
            biased;
            answer = &mut call => panic!("answered at once: {answer:?}"),
            answer = http2.get("/healthz") => assert_eq!(answer.status, 200),
        }
        let call = tokio::spawn(call);

        add.process.signal(signal).unwrap();
        add.process
            .stderr_line("shutting down", LIMIT)
            .await
            .unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "}").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"v":"1020"}"#),
            "{answer}"
        );
        assert_eq!(call.await.unwrap().text, r#"{"v":"xy"}"#, "{signal}");
        let begun = Instant::now();
        assert_eq!(
            add.process.exit(LIMIT).await.unwrap().code(),
            Some(0),
            "{signal}"
        );
        // Idle connections do not delay the end.
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        drop(idle);
    }
}

#[tokio::test]
async fn what_was_sent_before_the_signal_is_answered() {
    let request = b"POST /sum HTTP/1.1\r\nhost: x\r\ncontent-length: 13\r\n\r\n{\"a\":1,\"b\":2}";
    let mut add = add_alone(&["--drain", "5s"]).await;
    // Some connections have had an answer; the service may not have accepted the others yet.
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(add.http).await.unwrap();
        stream.write_all(request).await.unwrap();
        read_until(&mut stream, "}").await;
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.write_all(request).await.unwrap();
    }
    for _ in 0..40 {
        let mut stream = TcpStream::connect(add.http).await.unwrap();
        stream.write_all(request).await.unwrap();
        streams.push(stream);
    }
    add.process.signal(Signal::SIGTERM).unwrap();
    for stream in &mut streams {
        let answer = read_until(stream, "}").await;
        assert!(answer.ends_with("{\"v\":3}"), "{answer}");
    }
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_service_that_leaves_says_so_before_it_takes_no_more() {
    let mut add = add_alone(&["--drain", "4s"]).await;
    add.process.signal(Signal::SIGTERM).unwrap();
    let http = Http::new(&add);
    let look = async || {
        let answer = http.get("/readyz").await;
        match answer.reason() {
            reason if reason == "shutting down" => Ok(()),
            reason => Err(reason),
        }
    };
    eventually("not ready", LIMIT, look).await.unwrap();
    assert_eq!(http.post("/sum", "{}").await.status, 200);
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(0));
}
