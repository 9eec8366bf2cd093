//! The add service's HTTP contract, on the real binary with real trim instances behind it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use testkit::{Consul, Signal, add_service, eventually, http_client_builder};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{Http, LIMIT, QUICK, add_alone, add_over, connect, send, trims};

#[tokio::test]
async fn adds_and_joins() {
    let trims = trims(1, &[]).await;
    let add = add_over(&trims, &[]).await;
    let http = Http::new(&add);
    http.until_ready(1).await;
    for (path, body, expected) in [
        ("/sum", r#"{"a":1,"b":2}"#, r#"{"v":3}"#),
        ("/sum", r#"{"a":-5,"b":2}"#, r#"{"v":-3}"#),
        ("/sum", r#" { "b" : 2 } "#, r#"{"v":2}"#),
        ("/sum", "{}", r#"{"v":0}"#),
        ("/sum", r#"{"a":1,"b":2,"c":"x"}"#, r#"{"v":3}"#),
        (
            "/sum",
            r#"{"a":9223372036854775806,"b":1}"#,
            r#"{"v":9223372036854775807}"#,
        ),
        ("/concat", r#"{"a":"1 0","b":"2 0"}"#, r#"{"v":"1020"}"#),
        ("/concat", r#"{"a":" x "}"#, r#"{"v":"x"}"#),
        (
            "/concat",
            r#"{"a":"ä ","b":"\ud83d\ude00\n"}"#,
            "{\"v\":\"ä\u{1f600}\\n\"}",
        ),
        // Business errors.
        (
            "/sum",
            r#"{"a":9223372036854775807,"b":1}"#,
            r#"{"v":0,"err":"integer overflow"}"#,
        ),
        (
            "/sum",
            r#"{"a":-9223372036854775808,"b":-1}"#,
            r#"{"v":0,"err":"integer overflow"}"#,
        ),
        (
            "/concat",
            r#"{"a":"","b":""}"#,
            r#"{"v":"","err":"can't concat two empty strings"}"#,
        ),
        (
            "/concat",
            r#"{"a":"  ","b":" "}"#,
            r#"{"v":"","err":"can't concat two empty strings"}"#,
        ),
    ] {
        // What the content type says does not matter: curl says that a form is coming.
        for content_type in ["application/json", "application/x-www-form-urlencoded"] {
            let request = http
                .request("POST", path)
                .header("content-type", content_type);
            let answer = send(request.body(body)).await;
            assert_eq!(answer.status, 200, "{path} {body}");
            assert_eq!(answer.text, expected, "{path} {body}");
            assert_eq!(answer.header("content-type"), "application/json");
        }
    }
}

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
        ("/sum", r#"{"a":null}"#),
        ("/sum", r#"{"a":true}"#),
        ("/sum", r#"{"a":[1]}"#),
        ("/sum", r#"{"a":1,"a":2}"#),
        ("/concat", r#"{"a":1,"b":"2"}"#),
        ("/concat", r#"{"a":null}"#),
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
async fn unknown_paths_are_404_and_wrong_methods_405() {
    let add = add_alone(&[]).await;
    let http = Http::new(&add);
    for path in ["/", "/sums", "/sum/", "/pb.Add/Sum"] {
        let answer = http.post(path, "{}").await;
        assert_eq!(answer.status, 404, "{path}");
        answer.reason();
    }
    for (method, path, allowed) in [
        ("GET", "/sum", "POST"),
        ("PUT", "/concat", "POST"),
        ("DELETE", "/concat", "POST"),
        ("POST", "/metrics", "GET,HEAD"),
        ("POST", "/healthz", "GET,HEAD"),
        ("PUT", "/readyz", "GET,HEAD"),
    ] {
        let answer = send(http.request(method, path)).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        answer.reason();
    }
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
    // Without a length told beforehand.
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
    // Operators are not callers.
    assert_eq!(http.get("/healthz").await.status, 200);
    let look = async || match http.post("/sum", "{}").await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer),
    };
    eventually("taken again", LIMIT, look).await.unwrap();
}

#[tokio::test]
async fn without_an_instance_it_is_503_at_once_with_the_reason() {
    let consul = Consul::start().await.unwrap();
    let add = add_service(&["--consul", &consul.address()]).await.unwrap();
    let http = Http::new(&add);
    let look = async || {
        let answer = http.post("/concat", r#"{"a":"x"}"#).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let reason = answer.reason();
        // The first answers may come before Consul's.
        if reason.contains("no instance") {
            Ok(reason)
        } else {
            Err(reason)
        }
    };
    let (reason, _) = eventually("no instance", LIMIT, look).await.unwrap();
    assert!(reason.contains("trim_service"), "{reason}");
    let begun = Instant::now();
    assert_eq!(http.post("/concat", r#"{"a":"x"}"#).await.status, 503);
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());

    let ready = http.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.reason().contains("no trim instance is connected"),
        "{ready:?}"
    );
    assert_eq!(http.get("/healthz").await.status, 200);
    // What needs no instance works.
    assert_eq!(
        http.post("/sum", r#"{"a":1,"b":2}"#).await.text,
        r#"{"v":3}"#
    );
}

#[tokio::test]
async fn without_a_registry_it_is_503_with_the_reason() {
    let add = add_alone(&[]).await;
    let http = Http::new(&add);
    let begun = Instant::now();
    let answer = http.post("/concat", r#"{"a":"x"}"#).await;
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    assert_eq!(answer.status, 503);
    let look = async || match http.get("/readyz").await.reason() {
        reason if reason.contains("127.0.0.1:1") => Ok(reason),
        reason => Err(reason),
    };
    eventually("reason", LIMIT, look).await.unwrap();
}

#[tokio::test]
async fn with_all_instances_dead_it_is_503_quickly_and_each_attempt_is_told() {
    let mut trims = trims(3, &[]).await;
    let add = add_over(&trims, &[]).await;
    let http = Http::new(&add);
    http.until_ready(3).await;
    for trim in &mut trims {
        trim.process.signal(Signal::SIGKILL).unwrap();
        trim.process.exit(LIMIT).await.unwrap();
    }
    for _ in 0..5 {
        let begun = Instant::now();
        let answer = http.post("/concat", r#"{"a":"x","b":"y"}"#).await;
        let took = begun.elapsed();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(took < QUICK, "{took:?}");
        let reason = answer.reason();
        let told = trims
            .iter()
            .any(|trim| reason.contains(&trim.grpc.port().to_string()));
        assert!(told, "{reason}");
    }
    let look = async || match http.get("/readyz").await {
        answer if answer.status == 503 => Ok(()),
        answer => Err(answer),
    };
    eventually("not ready", LIMIT, look).await.unwrap();
}

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

    // Without a deadline of the caller's, the service has its own.
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
async fn calls_rotate_evenly_over_the_instances() {
    let trims = trims(3, &[]).await;
    let add = add_over(&trims, &[]).await;
    let http = Http::new(&add);
    http.until_ready(3).await;
    let mut named = BTreeMap::<String, u32>::new();
    for _ in 0..300 {
        let answer = http.post("/concat", r#"{"a":"1 0","b":"2 0"}"#).await;
        assert_eq!(answer.text, r#"{"v":"1020"}"#);
        let ids: Vec<_> = answer.header("x-trim-instance").split(',').collect();
        assert_eq!(ids.len(), 2, "{answer:?}");
        assert_ne!(ids[0], ids[1], "one instance served both texts");
        for id in ids {
            *named.entry(id.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(named.len(), 3, "{named:?}");
    assert!(named.values().all(|count| *count == 200), "{named:?}");
    // Sum asks no instance.
    assert_eq!(http.post("/sum", "{}").await.header("x-trim-instance"), "");
}

#[tokio::test]
async fn calls_of_one_key_stay_with_one_instance() {
    let trims = trims(3, &[]).await;
    let flags = ["--balancer=consistent-hash", "--key-header=x-user"];
    let add = add_over(&trims, &flags).await;
    let http = Http::new(&add);
    http.until_ready(3).await;
    let mut homes = BTreeMap::<String, u32>::new();
    for user in 0..30 {
        let mut home = None;
        for _ in 0..3 {
            let request = http
                .request("POST", "/concat")
                .header("x-user", user.to_string());
            let answer = send(request.body(r#"{"a":"x","b":"y"}"#)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let ids = answer.header("x-trim-instance");
            let (first, second) = ids.split_once(',').unwrap();
            assert_eq!(first, second, "one user, two instances");
            assert_eq!(home.get_or_insert_with(|| first.to_owned()), first);
        }
        *homes.entry(home.unwrap()).or_default() += 1;
    }
    assert_eq!(homes.len(), 3, "one instance has no user: {homes:?}");
}

/// The value of the series with this name and these labels, in any order.
fn series(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = text.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// What the calls of the test below leave in `/metrics`.
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
    // Every series has its kind told, as Prometheus wants it.
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

/// Reads from a connection until the answer has this end.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut received = String::new();
    while !received.ends_with(end) {
        let mut bytes = [0; 1024];
        let count = timeout(LIMIT, stream.read(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        assert_ne!(count, 0, "closed after {received:?}");
        received.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    received
}

#[tokio::test]
async fn accepted_requests_are_answered_after_the_signal() {
    let trims = trims(2, &["--fault", "latency=500ms"]).await;
    let flags = ["--retry-timeout", "10s", "--drain", "10s"];
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut add = add_over(&trims, &flags).await;
        let http = Http::new(&add);
        http.until_ready(2).await;
        // One that carries nothing.
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
        // Connections that carry nothing hold nobody up.
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
    // Some have had an answer before; of the others the service may not even know.
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

#[tokio::test]
async fn a_connection_takes_one_request_after_another() {
    let add = add_alone(&[]).await;
    let mut stream = TcpStream::connect(add.http).await.unwrap();
    for a in 0..100 {
        let body = format!("{{\"a\":{a},\"b\":1}}");
        let head = format!(
            "POST /sum HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        let answer = read_until(&mut stream, "}").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.ends_with(&format!("{{\"v\":{}}}", a + 1)),
            "{answer}"
        );
    }
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
        let known = ["[env: ", "CONSUL_HTTP_ADDR"];
        assert!(
            known.iter().any(|k| about.contains(k)),
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
        "add-service listening http={} grpc={}\n",
        add.http, add.grpc
    );
    assert_eq!(add.process.stdout(), announced);
}
