//! Policy of a channel for plain HTTP from a service config.

use std::{sync::Arc, time::Duration};

use discovery::{
    CallErrorKind, CallOptions, Hedge, config::ServiceConfig, http::Channel as HttpChannel,
};
use http::{Method, Request};
use serde_json::Value;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::{
    answer, eventually, get,
    memory::{Memory, connected, respond},
    post, request, send,
};

const MS: Duration = Duration::from_millis(1);

fn config(json: &str) -> ServiceConfig {
    let config = ServiceConfig::parse(json).unwrap();
    assert_eq!(config.warnings(), []);
    config
}

async fn configured(memory: &Memory, json: &str) -> HttpChannel {
    connected(memory.builder().service_config(config(json))).await
}

/// The time after which a call without an answer ends.
async fn timeout(channel: &HttpChannel, method: Method, path: &str) -> Duration {
    let begun = Instant::now();
    let error = send(channel, request(method, path, "")).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Deadline);
    begun.elapsed()
}

/// Servers that never answer.
fn silent() -> Memory {
    Memory::new(1, |_| std::future::pending())
}

#[tokio::test(start_paused = true)]
async fn the_entry_with_the_longest_path_and_then_the_one_with_the_method_holds() {
    let json = r#"{"methodConfig": [
        {"name": [{}], "timeout": "0.1s"},
        {"name": [{"path": "/", "method": "PUT"}], "timeout": "0.2s"},
        {"name": [{"path": "/orders/"}], "timeout": "0.3s"},
        {"name": [{"path": "/orders", "method": "POST"}, {"path": "/items"}], "timeout": "0.4s"},
        {"name": [{"path": "/orders/lines"}], "timeout": "0.5s"}
    ]}"#;
    let channel = configured(&silent(), json).await;
    for (method, path, millis) in [
        (Method::GET, "/", 100),
        (Method::GET, "/orders2", 100),
        (Method::PUT, "/", 200),
        (Method::PUT, "/orders2/17", 200),
        (Method::GET, "/orders", 300),
        (Method::GET, "/orders/17?lines=2", 300),
        // Not the entry of PUT, whose path is shorter.
        (Method::PUT, "/orders/17", 300),
        (Method::POST, "/orders", 400),
        (Method::POST, "/orders/17", 400),
        (Method::GET, "/items", 400),
        (Method::POST, "/orders/lines", 500),
        (Method::POST, "/orders/lines/1", 500),
    ] {
        let seen = timeout(&channel, method.clone(), path).await;
        assert_eq!(seen.as_millis(), millis, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_may_be_declared_idempotent_or_not() {
    let memory = Memory::new(2, |seen| async move {
        respond(if seen.port == 1 { 503 } else { 200 }, &[], "")
    });
    let json = r#"{
        "methodConfig": [
            {"name": [{"path": "/reports", "method": "POST"}], "discovery": {"idempotent": true}},
            {"name": [{"path": "/next"}], "discovery": {"idempotent": false}}
        ],
        "discovery": {"ejection": {"enabled": false}, "retryBudget": {"reserve": 100}}
    }"#;
    let channel = configured(&memory, json).await;
    let mut failed = Vec::new();
    for path in ["/reports", "/reports/7", "/orders", "/next"] {
        for method in [Method::POST, Method::GET] {
            // One of them begins at the faulty instance.
            for _ in 0..2 {
                let request = request(method.clone(), path, "text");
                let (status, _) = answer(&channel, request).await;
                if status == 503 {
                    failed.push(format!("{method} {path}"));
                }
            }
        }
    }
    assert_eq!(failed, ["POST /orders", "POST /next", "GET /next"]);
    // A request's own option is stronger.
    for _ in 0..2 {
        let mut request = get("/next");
        let option = CallOptions::new().with_idempotent(true);
        request.extensions_mut().insert(option);
        assert_eq!(answer(&channel, request).await.0, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_and_hedges_are_those_of_the_path() {
    let memory = silent();
    let json = r#"{"methodConfig": [
        {"name": [{"path": "/once"}], "timeout": "0.3s", "discovery": {"maxAttempts": 1}},
        {"name": [{"path": "/each"}], "timeout": "0.3s",
         "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.01s"}}
    ]}"#;
    let memory_of_three = Memory::new(3, |_| std::future::pending());
    let channel = configured(&memory, json).await;
    timeout(&channel, Method::GET, "/once").await;
    assert_eq!(memory.seen().len(), 1);
    let channel = configured(&memory_of_three, json).await;
    timeout(&channel, Method::POST, "/each").await;
    assert_eq!(memory_of_three.seen().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_route_by_path_method_and_header_chooses_the_instances() {
    let memory = Memory::new(3, |_| async { respond(200, &[], "") });
    let json = r#"{
        "methodConfig": [{"name": [{"path": "/orders"}], "timeout": "1s"}],
        "discovery": {"routes": [
            {"metadata": {"x-canary": null}, "split": [{"id": "127.0.0.1:3"}]},
            {"name": [{"path": "/", "method": "POST"}], "split": [{"id": "127.0.0.1:1"}]},
            {"name": [{"path": "/orders/beta"}], "split": [{"id": "127.0.0.1:2"}]}
        ]}
    }"#;
    let channel = configured(&memory, json).await;
    let ids: Vec<_> = channel
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.instance.id.clone())
        .collect();
    assert_eq!(ids, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
    let ports = async |make: fn() -> Request<_>| {
        let before = memory.seen().len();
        for _ in 0..3 {
            send(&channel, make()).await.unwrap();
        }
        let mut ports = memory.ports()[before..].to_vec();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports(|| get("/orders")).await, [1, 2, 3]);
    assert_eq!(ports(|| post("/items")).await, [1; 3]);
    // Its entry is that of the longer path, and the route holds all the same.
    assert_eq!(ports(|| post("/orders/17")).await, [1; 3]);
    assert_eq!(ports(|| get("/orders/beta/17")).await, [2; 3]);
    assert_eq!(ports(|| post("/orders/beta")).await, [1; 3]);
    let canary = || {
        let mut request = post("/orders");
        let value = "yes".parse().unwrap();
        request.headers_mut().insert("x-canary", value);
        request
    };
    assert_eq!(ports(canary).await, [3; 3]);
}

#[tokio::test(start_paused = true)]
async fn the_settings_of_the_channel_are_those_of_the_config() {
    let memory = Memory::new(2, |_| async {
        sleep(50 * MS).await;
        respond(200, &[], "")
    });
    let json = r#"{"discovery": {
        "balancer": "least-request", "subset": 1, "concurrencyLimit": 1,
        "requestHashHeader": "x-user",
        "connections": {"keepAlive": "30s", "tcpKeepAlive": "0s"}
    }}"#;
    let builder = HttpChannel::builder("static://127.0.0.1:1,127.0.0.1:2", "orders")
        .service_config(config(json));
    // This crate's own connections have pings and probes; the application's own have not.
    let shown: Value = serde_json::from_str(&builder.build().unwrap().effective_config()).unwrap();
    assert_eq!(shown["discovery"]["connections"]["keepAlive"], "30s");
    assert_eq!(shown["discovery"]["connections"]["tcpKeepAlive"], "0s");
    let error = memory
        .builder()
        .service_config(config(json))
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("keepAlive"), "{error}");

    let without = json.replace(r#""keepAlive": "30s", "tcpKeepAlive": "0s""#, "");
    let channel = configured(&memory, &without).await;
    assert_eq!(channel.snapshot().policy.settings.balancer, "least-request");
    assert_eq!(channel.request_hash_header().unwrap(), "x-user");
    let (one, other) = tokio::join!(send(&channel, get("/")), send(&channel, get("/")));
    let errors = [one, other].into_iter().filter_map(Result::err);
    let kinds: Vec<_> = errors.map(|error| error.kind).collect();
    assert_eq!(kinds, [CallErrorKind::ConcurrencyLimit]);
}

#[tokio::test(start_paused = true)]
async fn a_new_config_holds_for_the_next_request_and_loses_none() {
    let go_on = Arc::new(Semaphore::new(0));
    let memory = {
        let go_on = Arc::clone(&go_on);
        Memory::new(1, move |_| {
            let go_on = Arc::clone(&go_on);
            async move {
                go_on.acquire().await.unwrap().forget();
                respond(200, &[], "done")
            }
        })
    };
    let entry = |time| format!(r#"{{"methodConfig": [{{"name": [{{}}], "timeout": "{time}"}}]}}"#);
    let channel = configured(&memory, &entry("30s")).await;
    let under_way = {
        let channel = channel.clone();
        tokio::spawn(async move { answer(&channel, get("/orders")).await })
    };
    eventually(|| memory.seen().len() == 1).await;
    channel.set_service_config(config(&entry("0.2s"))).unwrap();
    let seen = timeout(&channel, Method::GET, "/orders").await;
    assert_eq!(seen.as_millis(), 200);
    // A bad one changes nothing.
    let bad = config(r#"{"healthCheckConfig": {"serviceName": "pb.Trim"}}"#);
    channel.set_service_config(bad).unwrap_err();
    let seen = timeout(&channel, Method::GET, "/orders").await;
    assert_eq!(seen.as_millis(), 200);
    go_on.add_permits(1);
    assert_eq!(under_way.await.unwrap(), (200, "done".to_owned()));
}

#[tokio::test]
async fn the_policy_in_effect_is_a_config_with_the_same_effect() {
    let json = r#"{
        "methodConfig": [
            {"name": [{"path": "/orders"}, {"path": "/items", "method": "GET"}], "timeout": "2s",
             "waitForReady": true, "discovery": {"idempotent": false, "maxAttempts": 2}},
            {"name": [{"path": "/", "method": "POST"}],
             "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.01s"}}
        ],
        "discovery": {"ejection": {"minCalls": 7}, "routes": [
            {"name": [{"path": "/orders", "method": "PUT"}], "split": [{"tags": ["a"]}]}
        ]}
    }"#;
    let builder = || HttpChannel::builder("static://127.0.0.1:1", "orders");
    let channel = builder().service_config(config(json)).build().unwrap();
    let effective = channel.effective_config();
    let shown: Value = serde_json::from_str(&effective).unwrap();
    let entries = shown["methodConfig"].as_array().unwrap();
    let name = |entry: &Value| {
        let name = &entry["name"][0];
        let text = |field: &str| name[field].as_str().unwrap_or("-").to_owned();
        format!("{} {}", text("method"), text("path"))
    };
    let mut names: Vec<_> = entries.iter().map(name).collect();
    names.sort_unstable();
    // With those of the requests that two of the names have in common.
    let expected = [
        "- -",
        "- /orders",
        "GET /items",
        "POST /",
        "POST /orders",
        "PUT /orders",
    ];
    assert_eq!(names, expected);
    let all = entries.iter().find(|entry| name(entry) == "- -").unwrap();
    // Left to each request.
    assert_eq!(all["discovery"]["idempotent"], Value::Null);
    assert_eq!(all["discovery"]["maxAttempts"], 3);

    let again = builder().service_config(config(&effective)).build();
    assert_eq!(again.unwrap().effective_config(), effective);
    let hedged = builder().hedge(Hedge::Each(10 * MS)).build().unwrap();
    hedged
        .set_service_config(config(&hedged.effective_config()))
        .unwrap();
}

#[tokio::test]
async fn what_plain_http_does_not_have_is_an_error_that_says_what_it_has() {
    let build = |json: &str| {
        let builder = HttpChannel::builder("static://127.0.0.1:1", "orders");
        let built = builder.service_config(config(json)).build();
        built.unwrap_err().to_string()
    };
    let entry = |fields: &str| format!(r#"{{"methodConfig": [{{"name": [{{}}], {fields}}}]}}"#);
    let retry = r#""retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "1s",
        "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}"#;
    let hedging = r#""hedgingPolicy": {"maxAttempts": 3, "nonFatalStatusCodes": ["UNAVAILABLE"]}"#;
    for (json, expected) in [
        (
            r#"{"methodConfig": [{"name": [{"service": "pb.Trim"}]}]}"#.to_owned(),
            "name of the service config is \"/pb.Trim\": a channel of plain HTTP has names such as {\"path\": \"/orders\"",
        ),
        (
            r#"{"discovery": {"routes": [{"name": [{"service": "a", "method": "b"}], "split": [{}]}]}}"#
                .to_owned(),
            "name of the service config is \"/a/b\": a channel of plain HTTP",
        ),
        (entry(retry), "retryPolicy is given: goes by gRPC's status codes"),
        (entry(hedging), "nonFatalStatusCodes is given"),
        (
            entry(r#""discovery": {"retryCodes": ["ABORTED"]}"#),
            "retryCodes is given",
        ),
        (
            entry(r#""discovery": {"idempotentCodes": ["ABORTED"]}"#),
            "idempotentCodes is given",
        ),
        (
            entry(r#""maxRequestMessageBytes": 7"#),
            "maxRequestMessageBytes is given: is the size of a gRPC message",
        ),
        (
            entry(r#""maxResponseMessageBytes": 7"#),
            "maxResponseMessageBytes is given",
        ),
        (
            r#"{"healthCheckConfig": {}}"#.to_owned(),
            "healthCheckConfig is given: calls gRPC's health service",
        ),
    ] {
        let error = build(&json);
        assert!(error.contains(expected), "{error}");
    }
    // And the other way round.
    let json = r#"{"methodConfig": [{"name": [{"path": "/orders"}]}]}"#;
    let grpc = discovery::Channel::builder("static://127.0.0.1:1", "orders");
    let error = grpc.service_config(config(json)).build().unwrap_err();
    let expected =
        "name of the service config is \"/orders\": a gRPC channel has names such as {\"service\"";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_name_that_cannot_be_is_an_error_with_its_place() {
    for (name, expected) in [
        (r#"{"path": "orders"}"#, "expected a path such as"),
        (r#"{"path": "/a b"}"#, "expected a path such as"),
        (r#"{"path": "/a?b"}"#, "expected a path such as"),
        (r#"{"path": 7}"#, "methodConfig[0].name[0].path"),
        (
            r#"{"path": "/a", "method": "get"}"#,
            "expected an HTTP method such as \"GET\"",
        ),
        (
            r#"{"path": "/a", "method": "G T"}"#,
            "methodConfig[0].name[0].method",
        ),
        (
            r#"{"path": "/a", "service": "b"}"#,
            "a name has a path, for plain HTTP, or a service",
        ),
        (
            r#"{"path": "/a"}, {"path": "/a/"}"#,
            "the name is given twice",
        ),
    ] {
        let json = format!(r#"{{"methodConfig": [{{"name": [{name}]}}]}}"#);
        let error = ServiceConfig::parse(&json).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
