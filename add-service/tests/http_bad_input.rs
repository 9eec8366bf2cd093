//! Requests over HTTP that the add service rejects: malformed (400), too large (413), too many (429).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use testkit::eventually;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{Http, LIMIT, add_alone, read_until, send};

#[tokio::test]
async fn a_body_that_is_not_what_the_method_takes_is_400() {
    let add = add_alone(&[]).await;
    let http = Http::new(&add);
    for path in ["/sum", "/concat"] {
        let bodies: [&[u8]; 12] = [
            b"",
            b"   ",
            b"{",
            b"{\"a\":1,}",
            b"nonsense",
            b"null",
            b"3",
            b"\"text\"",
            b"[1,2]",
            b"[\"a\",\"b\"]",
            b"{\"a\":\"\xff\xfe\"}",
            b"{} {}",
        ];
        for body in bodies {
            let answer = http.post(path, body).await;
            assert_eq!(
                answer.status,
                400,
                "{path} {:?}",
                String::from_utf8_lossy(body)
            );
            answer.reason();
        }
    }
    for (path, body) in [
        ("/sum", r#"{"a":"1","b":2}"#),
        ("/sum", r#"{"a":1.5,"b":2}"#),
        ("/sum", r#"{"a":1.0,"b":2}"#),
        ("/sum", r#"{"a":1e3,"b":2}"#),
        ("/sum", r#"{"a":9223372036854775808,"b":0}"#),
        ("/sum", r#"{"a":-9223372036854775809,"b":0}"#),
        ("/sum", r#"{"a":true}"#),
        ("/sum", r#"{"a":[1]}"#),
        ("/sum", r#"{"a":1,"a":2}"#),
        ("/sum", r#"{"a":1,"A":2}"#),
        ("/sum", r#"{"a":1,"b":2,"B":null}"#),
        ("/concat", r#"{"a":"x","A":"y"}"#),
        ("/concat", r#"{"a":1,"b":"2"}"#),
        ("/concat", r#"{"a":["x"]}"#),
        ("/concat", r#"{"a":"\ud800"}"#),
    ] {
        let answer = http.post(path, body).await;
        assert_eq!(answer.status, 400, "{path} {body}");
        let reason = answer.reason();
        assert!(reason.contains("not what this method takes"), "{reason}");
    }
    let request = http.request("POST", "/sum").header("grpc-timeout", "soon");
    let answer = send(request.body("{}")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.reason().contains("grpc-timeout"), "{answer:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let add = add_alone(&["--max-body", "1000"]).await;
    let http = Http::new(&add);
    let body = |length: usize| format!("{:<length$}", r#"{"a":1}"#);
    assert_eq!(http.post("/sum", body(1000)).await.status, 200);
    let answer = http.post("/sum", body(1001)).await;
    assert_eq!(answer.status, 413);
    answer.reason();
    // Without a content-length.
    let chunk = format!("258\r\n{}\r\n", body(600));
    let head = "POST /concat HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = TcpStream::connect(add.http).await.unwrap();
    let request = format!("{head}{chunk}{chunk}0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "}").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_sends_everything_before_it_reads_learns_that_it_was_too_much() {
    let add = add_alone(&[]).await;
    let body = vec![b' '; 8 << 20];
    for head in [
        format!("content-length: {}\r\n\r\n", body.len()),
        format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()),
    ] {
        let mut stream = TcpStream::connect(add.http).await.unwrap();
        let head = format!("POST /concat HTTP/1.1\r\nhost: x\r\n{head}");
        stream.write_all(head.as_bytes()).await.unwrap();
        timeout(LIMIT, stream.write_all(&body))
            .await
            .unwrap()
            .unwrap();
        let answer = read_until(&mut stream, "}").await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[tokio::test]
async fn requests_over_the_rate_limit_are_429() {
    let add = add_alone(&["--rate-limit", "5"]).await;
    let http = Http::new(&add);
    let begun = Instant::now();
    let mut taken = 0_u32;
    let mut refused = None;
    for _ in 0..50 {
        let answer = http.post("/sum", r#"{"a":1,"b":2}"#).await;
        match answer.status.as_u16() {
            200 => taken += 1,
            429 => refused = Some(answer),
            _ => panic!("{answer:?}"),
        }
    }
    let allowed = 6.0 + 5.0 * begun.elapsed().as_secs_f64();
    assert!(
        taken >= 5 && f64::from(taken) <= allowed,
        "{taken} of 50, {allowed} allowed"
    );
    let reason = refused.unwrap().reason();
    assert!(reason.contains("too many requests"), "{reason}");
    // The limit does not apply to the operators' endpoints.
    assert_eq!(http.get("/healthz").await.status, 200);
    let look = async || match http.post("/sum", "{}").await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer),
    };
    eventually("taken again", LIMIT, look).await.unwrap();
}
