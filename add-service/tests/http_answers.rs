//! Answers of the add service over HTTP: results, business errors, paths, methods, and the spread over
//! instances.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeMap;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{Http, add_alone, add_over, read_until, send, trims};

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
        // As Go's decoder takes them.
        ("/sum", r#"{"A":1,"B":2}"#, r#"{"v":3}"#),
        ("/sum", r#"{"a":null,"b":2}"#, r#"{"v":2}"#),
        ("/sum", r#"{"a":1,"a":1,"b":2}"#, r#"{"v":3}"#),
        ("/sum", r#"{"a":-0,"b":2}"#, r#"{"v":2}"#),
        ("/concat", r#"{"A":"1 0","B":null}"#, r#"{"v":"10"}"#),
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
        // The content type is ignored: curl sends that of a form.
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
async fn unknown_paths_are_404_and_wrong_methods_405() {
    let add = add_alone(&[]).await;
    let http = Http::new(&add);
    for path in ["/sums", "/sum/", "/pb.Add/Sum"] {
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
        ("POST", "/", "GET,HEAD"),
    ] {
        let answer = send(http.request(method, path)).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        answer.reason();
    }
}

#[tokio::test]
async fn calls_rotate_evenly_over_the_instances() {
    let trims = trims(3, &[]).await;
    let config = support::patient();
    let flags = ["--trim-config", config.path().to_str().unwrap()];
    let add = add_over(&trims, &flags).await;
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
    // Sum calls no instance.
    assert_eq!(http.post("/sum", "{}").await.header("x-trim-instance"), "");
}

#[tokio::test]
async fn calls_of_one_key_stay_with_one_instance() {
    let trims = trims(3, &[]).await;
    let config = support::trim_config(
        r#"{"loadBalancingConfig": [{"ring_hash_experimental": {"requestHashHeader": "x-user"}}],
        "methodConfig": [{"name": [{}], "discovery": {"learnAttemptTimeout": false}}]}"#,
    );
    let flags = ["--trim-config", config.path().to_str().unwrap()];
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
