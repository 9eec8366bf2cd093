//! The page's port and paths: who may see them, what they show, and that they end with the service.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;

use serde_json::{Value, json};
use testkit::{Signal, add_service, eventually};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use crate::support::{
    Answer, Http, LIMIT, QUICK, add_alone, add_over, read_until, send, trim_config, trims,
};

/// Paths that only operators may see.
const OPERATORS: [&str; 4] = ["/", "/page/page.js", "/debug/channel", "/debug/live"];

/// A viewer of the page that has received its first bytes.
async fn viewer(address: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /debug/live HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    (stream, head)
}

async fn with_host(http: &Http, path: &str, host: &str) -> Answer {
    send(http.request("GET", path).header("host", host)).await
}

#[tokio::test]
async fn the_page_loads_only_its_own_files_and_the_state_is_there_as_json() {
    let trims = trims(2, &[]).await;
    let add = add_over(&trims, &[]).await;
    let http = Http::new(&add);
    http.until_ready(2).await;
    let page = http.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for (file, kind) in [
        ("page.js", "text/javascript; charset=utf-8"),
        ("page.css", "text/css; charset=utf-8"),
        ("zh.json", "application/json"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let answer = http.get(&format!("/page/{file}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (200, kind)
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    assert_eq!(http.get("/page/passwd").await.status, 404);

    assert_eq!(http.post("/concat", r#"{"a":"x"}"#).await.status, 200);
    let state: Value = serde_json::from_str(&http.get("/debug/channel").await.text).unwrap();
    let endpoints = state["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    let ended = endpoints.iter().map(|e| e["calls"]["ended"].as_u64());
    assert_eq!(ended.map(Option::unwrap).sum::<u64>(), 2, "{state}");
    assert_eq!(state["policy"]["retry"]["max_attempts"], 3);
}

#[tokio::test]
async fn a_port_of_its_own_has_the_page_and_the_other_port_has_not() {
    let add = add_alone(&["--admin-listen", "localhost:0"]).await;
    let (http, admin) = (Http::new(&add), Http::at(add.admin));
    for path in ["/", "/debug/channel", "/metrics", "/healthz"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
        assert_eq!(http.get(path).await.status, 404, "{path}");
    }
    assert_eq!(admin.get("/readyz").await.status, 503);
    let sum = r#"{"a":1,"b":2}"#;
    assert_eq!(http.post("/sum", sum).await.text, r#"{"v":3}"#);
    assert_eq!(admin.post("/sum", sum).await.status, 404);
}

#[tokio::test]
async fn a_stranger_sees_nothing_of_the_page() {
    // On all addresses, as by default.
    let add = add_alone(&["--listen", "0.0.0.0"]).await;
    let http = Http::at(([127, 0, 0, 1], add.http.port()).into());
    for path in OPERATORS {
        assert_eq!(http.get(path).await.status, 404, "{path}");
    }
    assert_eq!(http.get("/healthz").await.status, 200);

    // On a loopback address: not by another site's name, and not through a proxy.
    let add = add_alone(&[]).await;
    let http = Http::new(&add);
    assert_eq!(http.get("/").await.status, 200);
    for path in OPERATORS {
        let answer = with_host(&http, path, "evil.example").await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.reason().contains("--page on"), "{answer:?}");
        let request = http.request("GET", path);
        let answer = send(request.header("x-forwarded-for", "192.0.2.1")).await;
        assert_eq!(answer.status, 403, "{path}");
    }
    // Callers are not affected.
    let request = http.request("POST", "/sum").header("host", "evil.example");
    assert_eq!(send(request.body("{}")).await.status, 200);
    let request = http.request("POST", "/debug/try/sum");
    let request = request.header("sec-fetch-site", "cross-site").body("{}");
    assert_eq!(send(request).await.status, 403);

    let off = add_alone(&["--page", "off"]).await;
    assert_eq!(Http::new(&off).get("/").await.status, 404);
    let on = add_alone(&["--page", "on"]).await;
    let answer = with_host(&Http::new(&on), "/", "add.example").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn the_stream_begins_with_the_last_events_and_goes_on_with_frames() {
    let mut trims = trims(1, &[]).await;
    let add = add_over(&trims, &[]).await;
    let http = Http::new(&add);
    http.until_ready(1).await;
    trims[0].process.signal(Signal::SIGKILL).unwrap();
    trims[0].process.exit(LIMIT).await.unwrap();
    let look = async || {
        let state: Value = serde_json::from_str(&http.get("/debug/channel").await.text).unwrap();
        state["endpoints"][0]["connectivity"] == "transient_failure"
    };
    eventually("unreachable", LIMIT, look).await.unwrap();
    let (mut stream, head) = viewer(add.http).await;
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    // The first frame covers no time, the others half a second.
    let received = head + &read_until(&mut stream, r#""seconds":0.5"#).await;
    let happened = received.find(r#""event":"unreachable""#).unwrap();
    let frame = received.find("event: frame").unwrap();
    assert!(happened < frame, "{received}");
    assert!(received.contains(r#""state":"unreachable""#), "{received}");
}

#[tokio::test]
async fn viewers_are_bounded_and_their_places_are_given_back() {
    let add = add_alone(&[]).await;
    let mut viewers = Vec::new();
    loop {
        let (stream, head) = viewer(add.http).await;
        if head.starts_with("HTTP/1.1 503") {
            break;
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        viewers.push(stream);
        assert!(viewers.len() < 1_000, "without a bound");
    }
    drop(viewers);
    let look = async || viewer(add.http).await.1.starts_with("HTTP/1.1 200");
    eventually("a place is free", LIMIT, look).await.unwrap();
}

#[tokio::test]
async fn viewers_do_not_hold_the_end_of_the_service_up() {
    let mut add = add_alone(&["--drain", "2s"]).await;
    let (mut reads, _) = viewer(add.http).await;
    let begun = Instant::now();
    add.process.signal(Signal::SIGTERM).unwrap();
    // The end of a chunked body.
    read_until(&mut reads, "0\r\n\r\n").await;
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_tried_call_shows_every_attempt() {
    let faulty = trims(1, &["--fault", "error=unavailable,rate=1"]).await;
    let good = trims(1, &[]).await;
    let addresses = format!("{},{}", faulty[0].grpc, good[0].grpc);
    let config = trim_config(r#"{"discovery": {"ejection": {"enabled": false}}}"#);
    let config = config.path().to_str().unwrap();
    let flags = ["--static", &addresses, "--trim-config", config];
    let add = add_service(&flags).await.unwrap();
    let http = Http::new(&add);
    http.until_ready(2).await;
    let answer = http
        .post("/debug/try/concat", r#"{"a":"1 0","b":"2 0"}"#)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let tried: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(tried["v"], "1020");
    let attempts: Vec<_> = tried["calls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|call| call["attempts"].as_array().unwrap())
        .map(|attempt| {
            let (address, code) = (attempt["address"].as_str(), attempt["code"].as_str());
            (address.unwrap().to_owned(), code.unwrap().to_owned())
        })
        .collect();
    let count = |address: SocketAddr, code: &str| {
        let wanted = (address.to_string(), code.to_owned());
        attempts
            .iter()
            .filter(|attempt| **attempt == wanted)
            .count()
    };
    // Round robin: one of the two calls begins with the faulty instance.
    assert_eq!(count(faulty[0].grpc, "UNAVAILABLE"), 1, "{tried}");
    assert_eq!(count(good[0].grpc, "OK"), 2, "{tried}");

    // A status that is not repeated, and which comes from an instance, names it too.
    let flags = ["--static", &addresses, "--retry-max", "1"];
    let once_service = add_service(&flags).await.unwrap();
    let once = Http::new(&once_service);
    once.until_ready(2).await;
    let answer = once.post("/debug/try/concat", r#"{"a":"1 0","b":"2 0"}"#);
    let tried: Value = serde_json::from_str(&answer.await.text).unwrap();
    assert_eq!(tried["v"], Value::Null, "{tried}");
    let calls = tried["calls"].as_array().unwrap();
    let failed = calls
        .iter()
        .find(|call| call["error"] != Value::Null)
        .unwrap();
    assert_eq!(failed["attempts"][0]["address"], faulty[0].grpc.to_string());
    assert_eq!(failed["attempts"][0]["code"], "UNAVAILABLE");

    let answer = http.post("/debug/try/sum", r#"{"a":9223372036854775807,"b":1}"#);
    let tried: Value = serde_json::from_str(&answer.await.text).unwrap();
    assert_eq!(tried["err"], "integer overflow");
    let answer = http.post("/debug/try/sum", r#"{"a":9223372036854775806,"b":1}"#);
    let tried: Value = serde_json::from_str(&answer.await.text).unwrap();
    // A text, as numbers of JavaScript are not exact here.
    assert_eq!(tried["v"], json!("9223372036854775807"));
    assert_eq!(http.post("/debug/try/sum", "[").await.status, 400);
}
