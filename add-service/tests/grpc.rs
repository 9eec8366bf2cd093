//! The add service's gRPC contract, on the real binary with real trim instances behind it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use prost::Message as _;
use proto::{
    ConcatRequest, ConcatResponse, SumRequest, SumResponse, TrimRequest, add_client::AddClient,
    trim_client::TrimClient,
};
use reqwest::Client;
use testkit::{Consul, Signal, add_service, eventually, http_client_builder};
use tokio::{task::JoinHandle, time::Instant};
use tonic::{Code, Response, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{Http, LIMIT, QUICK, add_alone, add_over, connect, trims};

fn texts(a: &str, b: &str) -> ConcatRequest {
    ConcatRequest {
        a: a.to_owned(),
        b: b.to_owned(),
    }
}

/// A client without deadlines of its own, so that the server's apply. tonic's client has its own.
#[derive(Clone)]
struct Bare {
    client: Client,
    address: SocketAddr,
}

/// Status and message of a call that failed.
#[derive(Debug)]
struct Failed {
    code: Code,
    message: String,
}

impl Bare {
    fn new(address: SocketAddr) -> Self {
        let client = http_client_builder().unwrap().http2_prior_knowledge();
        let client = client.build().unwrap();
        Self { client, address }
    }

    /// Calls a method that must fail before an answer.
    async fn fail(&self, method: &str, grpc_timeout: &str, message: &[u8]) -> Failed {
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message);
        let url = format!("http://{}/pb.Add/{method}", self.address);
        let mut request = self.client.post(url).body(body);
        if !grpc_timeout.is_empty() {
            request = request.header("grpc-timeout", grpc_timeout);
        }
        let request = request.header("content-type", "application/grpc");
        let response = request.header("te", "trailers").send().await.unwrap();
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap())
        };
        assert_eq!(response.status(), 200, "{response:?}");
        Failed {
            code: Code::from_bytes(header("grpc-status").as_bytes()),
            message: header("grpc-message").replace("%20", " "),
        }
    }
}

/// Asserts that `Sum`, which needs no trim instance, still works.
async fn adds(client: &mut AddClient<Channel>) {
    let answer = client.sum(SumRequest { a: 1, b: 2 }).await.unwrap();
    assert_eq!(answer.into_inner().v, 3);
}

#[tokio::test]
async fn adds_and_joins() {
    let trims = trims(1, &[]).await;
    let add = add_over(&trims, &[]).await;
    Http::new(&add).until_ready(1).await;
    let mut client = AddClient::new(connect(add.grpc).await);
    for (a, b, v, err) in [
        (1, 2, 3, ""),
        (i64::MAX, i64::MIN, -1, ""),
        (0, 0, 0, ""),
        (i64::MAX, 1, 0, "integer overflow"),
        (i64::MIN, -1, 0, "integer overflow"),
    ] {
        let answer = client.sum(SumRequest { a, b }).await.unwrap();
        assert!(answer.metadata().get("x-trim-instance").is_none());
        let err = err.to_owned();
        assert_eq!(answer.into_inner(), SumResponse { v, err }, "{a} + {b}");
    }
    let empty = "can't concat two empty strings";
    for (a, b, v, err) in [
        ("1 0", "2 0", "1020", ""),
        ("", " x", "x", ""),
        ("ä ", "\u{1f600}\n", "ä\u{1f600}\n", ""),
        ("", "", "", empty),
        (" ", "   ", "", empty),
    ] {
        let answer = client.concat(texts(a, b)).await.unwrap().into_inner();
        let (v, err) = (v.to_owned(), err.to_owned());
        assert_eq!(answer, ConcatResponse { v, err }, "{a:?} and {b:?}");
    }
}

#[tokio::test]
async fn calls_rotate_evenly_over_the_instances() {
    let trims = trims(3, &[]).await;
    let config = support::patient();
    let flags = ["--trim-config", config.path().to_str().unwrap()];
    let add = add_over(&trims, &flags).await;
    Http::new(&add).until_ready(3).await;
    let mut client = AddClient::new(connect(add.grpc).await);
    let mut named = BTreeMap::<String, u32>::new();
    for _ in 0..300 {
        let answer = client.concat(texts("1 0", "2 0")).await.unwrap();
        let ids = answer.metadata().get("x-trim-instance").unwrap();
        for id in ids.to_str().unwrap().split(',') {
            *named.entry(id.to_owned()).or_default() += 1;
        }
        assert_eq!(answer.into_inner().v, "1020");
    }
    // Instances of a static list have no registered ID; the ID is the address.
    let ports: Vec<_> = trims
        .iter()
        .map(|trim| trim.grpc.port().to_string())
        .collect();
    let known = |id: &String| ports.iter().any(|port| id.ends_with(port));
    assert!(named.len() == 3 && named.keys().all(known), "{named:?}");
    assert!(named.values().all(|count| *count == 200), "{named:?}");
}

#[tokio::test]
async fn without_an_instance_it_is_unavailable_at_once() {
    let consul = Consul::start().await.unwrap();
    let add = add_service(&["--consul", &consul.address()]).await.unwrap();
    let mut client = AddClient::new(connect(add.grpc).await);
    let look = async || {
        let status = client.concat(texts("x", "")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        // The first answers may come before Consul's.
        if status.message().contains("no instance") {
            Ok(())
        } else {
            Err(status)
        }
    };
    eventually("no instance", LIMIT, look).await.unwrap();
    let begun = Instant::now();
    client.concat(texts("x", "")).await.unwrap_err();
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    adds(&mut client).await;
}

#[tokio::test]
async fn with_all_instances_dead_it_is_unavailable_quickly() {
    let mut trims = trims(3, &[]).await;
    let add = add_over(&trims, &["--error-detail=full"]).await;
    Http::new(&add).until_ready(3).await;
    for trim in &mut trims {
        trim.process.signal(Signal::SIGKILL).unwrap();
        trim.process.exit(LIMIT).await.unwrap();
    }
    let mut client = AddClient::new(connect(add.grpc).await);
    for _ in 0..5 {
        let begun = Instant::now();
        let status = client.concat(texts("x", "y")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let named = trims
            .iter()
            .any(|trim| status.message().contains(&trim.grpc.port().to_string()));
        assert!(named, "{status:?}");
        assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn whatever_fails_behind_it_is_unavailable() {
    for fault in [
        "error=internal",
        "error=invalid_argument",
        "error=unavailable",
    ] {
        let trims = trims(2, &["--fault", fault]).await;
        let add = add_over(&trims, &[]).await;
        Http::new(&add).until_ready(2).await;
        let failed = Bare::new(add.grpc)
            .fail("Concat", "", &texts("x", "y").encode_to_vec())
            .await;
        assert_eq!(failed.code, Code::Unavailable, "{fault}: {failed:?}");
    }
}

#[tokio::test]
async fn past_the_deadline_it_is_deadline_exceeded() {
    let trims = trims(2, &["--fault", "latency=60s"]).await;
    let add = add_over(&trims, &["--retry-timeout", "20s"]).await;
    Http::new(&add).until_ready(2).await;
    let bare = Bare::new(add.grpc);
    for (grpc_timeout, least) in [("200m", 200), ("150000u", 150), ("1n", 0)] {
        let begun = Instant::now();
        let failed = bare
            .fail("Concat", grpc_timeout, &texts("x", "y").encode_to_vec())
            .await;
        let took = begun.elapsed();
        assert_eq!(
            failed.code,
            Code::DeadlineExceeded,
            "{grpc_timeout}: {failed:?}"
        );
        assert!(
            took >= Duration::from_millis(least) && took < QUICK,
            "{took:?}"
        );
    }
    // Without a deadline of the caller, the service's own applies.
    let add = add_over(&trims, &["--retry-timeout", "300ms"]).await;
    Http::new(&add).until_ready(2).await;
    let begun = Instant::now();
    let failed = Bare::new(add.grpc)
        .fail("Concat", "", &texts("x", "y").encode_to_vec())
        .await;
    assert_eq!(failed.code, Code::DeadlineExceeded, "{failed:?}");
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_malformed_deadline_is_an_invalid_argument() {
    let add = add_alone(&[]).await;
    let bare = Bare::new(add.grpc);
    for (method, message) in [
        ("Sum", SumRequest { a: 1, b: 2 }.encode_to_vec()),
        ("Concat", texts("x", "y").encode_to_vec()),
    ] {
        for grpc_timeout in ["soon", "1", "m", "123456789m", "-1S", "1x"] {
            let failed = bare.fail(method, grpc_timeout, &message).await;
            assert_eq!(
                failed.code,
                Code::InvalidArgument,
                "{grpc_timeout}: {failed:?}"
            );
            assert!(failed.message.contains("grpc-timeout"), "{failed:?}");
        }
    }
}

#[tokio::test]
async fn calls_over_the_rate_limit_are_resource_exhausted() {
    let add = add_alone(&["--rate-limit", "5"]).await;
    let mut client = AddClient::new(connect(add.grpc).await);
    let begun = Instant::now();
    let mut taken = 0_u32;
    for _ in 0..50 {
        match client.sum(SumRequest { a: 1, b: 2 }).await {
            Ok(_) => taken += 1,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
        }
    }
    let allowed = 6.0 + 5.0 * begun.elapsed().as_secs_f64();
    assert!(
        taken >= 5 && f64::from(taken) <= allowed,
        "{taken} of 50, {allowed} allowed"
    );
    // gRPC and HTTP share the limit.
    let http = Http::new(&add);
    let look = async || match http.post("/sum", "{}").await.status.as_u16() {
        429 => Ok(()),
        other => Err(other),
    };
    eventually("refused on HTTP as well", LIMIT, look)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_no_message_of_the_method_is_refused() {
    let add = add_alone(&["--max-body", "1000"]).await;
    let bare = Bare::new(add.grpc);
    let failed = bare.fail("Sum", "", b"\xff\xff\xff").await;
    assert_eq!(failed.code, Code::InvalidArgument, "{failed:?}");
    // A text that is not UTF-8.
    let failed = bare.fail("Concat", "", b"\x0a\x01\xff").await;
    assert_eq!(failed.code, Code::InvalidArgument, "{failed:?}");
    let mut client = AddClient::new(connect(add.grpc).await);
    let status = client
        .concat(texts(&"x".repeat(1001), ""))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let mut trim = TrimClient::new(connect(add.grpc).await);
    let status = trim.trim_space(TrimRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    // The next call is not affected.
    adds(&mut client).await;
}

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let service = service.to_owned();
    let mut client = HealthClient::new(channel.clone());
    let answer = client.check(HealthCheckRequest { service }).await;
    answer.unwrap().into_inner().status()
}

/// A call that the service has received and not answered.
async fn in_flight(channel: &Channel) -> JoinHandle<Result<Response<ConcatResponse>, Status>> {
    let mut client = AddClient::new(channel.clone());
    let mut call = Box::pin(async move { client.concat(texts("1 0", "2 0")).await });
    // On one connection, the later request arrives later.
    tokio::select! {
        biased;
        answer = &mut call => panic!("answered at once: {answer:?}"),
        status = health(channel, "") => assert_eq!(status, ServingStatus::Serving),
    }
    tokio::spawn(call)
}

#[tokio::test]
async fn health_is_told_and_accepted_calls_are_answered_after_the_signal() {
    let trims = trims(2, &["--fault", "latency=1500ms"]).await;
    let mut add = add_over(&trims, &["--retry-timeout", "20s", "--drain", "10s"]).await;
    Http::new(&add).until_ready(2).await;
    let channel = connect(add.grpc).await;
    for name in ["", "pb.Add"] {
        assert_eq!(
            health(&channel, name).await,
            ServingStatus::Serving,
            "{name:?}"
        );
    }
    let watched = HealthCheckRequest::default();
    let mut watch = HealthClient::new(channel.clone())
        .watch(watched)
        .await
        .unwrap()
        .into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    let call = in_flight(&channel).await;
    add.process.signal(Signal::SIGTERM).unwrap();
    let update = watch.message().await.unwrap().unwrap();
    assert_eq!(update.status(), ServingStatus::NotServing);
    drop(watch);
    assert_eq!(call.await.unwrap().unwrap().into_inner().v, "1020");
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let trims = trims(1, &["--fault", "latency=60s"]).await;
    let flags = ["--retry-timeout", "60s", "--drain", "60s"];
    let mut add = add_over(&trims, &flags).await;
    Http::new(&add).until_ready(1).await;
    let channel = connect(add.grpc).await;
    let _call = in_flight(&channel).await;
    add.process.signal(Signal::SIGTERM).unwrap();
    add.process
        .stderr_line("a second signal exits at once", LIMIT)
        .await
        .unwrap();
    let begun = Instant::now();
    add.process.signal(Signal::SIGINT).unwrap();
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(130));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn reflection_lists_the_services_that_it_serves() {
    let add = add_alone(&[]).await;
    let channel = connect(add.grpc).await;
    let listed = testkit::reflected_services(channel).await.unwrap();
    for services in listed {
        assert_eq!(services, ["pb.Add", "grpc.health.v1.Health"]);
    }
}
