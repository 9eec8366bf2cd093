//! The spans that a collector receives of calls through both services, over OTLP.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span as OtlpSpan, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use proto::{ConcatRequest, add_client::AddClient};
use testkit::{Process, Signal, eventually, http_client, service_binary};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::support::{LIMIT, connect};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A span as it was received.
#[derive(Clone, Debug)]
struct Span {
    service: String,
    name: String,
    id: String,
    parent: String,
    kind: SpanKind,
    status: StatusCode,
    description: String,
    attributes: HashMap<String, String>,
    events: Vec<String>,
    begin: u64,
    end: u64,
}

/// A collector: takes spans over OTLP, by HTTP and by gRPC.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    async fn over_http(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let take = |State(collector): State<Self>, body: Bytes| async move {
            collector.take(ExportTraceServiceRequest::decode(body).unwrap());
            ExportTraceServiceResponse::default().encode_to_vec()
        };
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address
    }

    async fn over_grpc(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    fn take(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.resource_spans {
            let resource = attributes(of_resource.resource.unwrap().attributes);
            let service = &resource["service.name"];
            let received = of_resource.scope_spans.into_iter();
            let received = received.flat_map(|of_scope| of_scope.spans);
            let received = received.filter(|span| hex(&span.trace_id) == TRACE);
            spans.extend(received.map(|span| Span::of(service, span)));
        }
    }

    /// The spans of the test's trace, once there are as many.
    async fn spans(&self, count: usize) -> Vec<Span> {
        let look = async || {
            let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let enough = spans.len() >= count;
            enough.then(|| spans.clone()).ok_or_else(|| spans.clone())
        };
        let (mut spans, _) = eventually("the spans", LIMIT, look).await.unwrap();
        spans.sort_by_key(|span| span.begin);
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Span {
    fn of(service: &str, span: OtlpSpan) -> Self {
        let kind = span.kind();
        let status = span.status.unwrap_or_default();
        Self {
            service: service.to_owned(),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            kind,
            status: status.code(),
            description: status.message,
            attributes: attributes(span.attributes),
            events: span.events.into_iter().map(|event| event.name).collect(),
            begin: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            name: span.name,
        }
    }

    fn attribute(&self, name: &str) -> &str {
        let value = self.attributes.get(name);
        value.map_or("", String::as_str)
    }
}

fn attributes(attributes: Vec<KeyValue>) -> HashMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = attributes.into_iter();
    pairs
        .map(|one| (one.key, text(one.value.and_then(|value| value.value))))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// The spans of this name under a parent.
fn under<'a>(spans: &'a [Span], parent: &str, name: &str) -> Vec<&'a Span> {
    let found = spans.iter();
    found
        .filter(|span| span.parent == parent && span.name == name)
        .collect()
}

/// The services, which export to a collector.
struct Services {
    add: Process,
    trims: Vec<Process>,
    http: String,
    grpc: SocketAddr,
}

impl Services {
    /// Starts one trim instance per list of flags, and the add service.
    async fn start(variables: &[(&str, &str)], trims: [&[&str]; 2], add: &[&str]) -> Self {
        let variables = || variables.iter().copied();
        let listen = ["--listen", "127.0.0.1", "--drain", "1s"];
        let program = service_binary("trim-service").await.unwrap();
        let mut processes = Vec::new();
        let mut addresses = Vec::new();
        for flags in trims {
            let ports = ["--port", "0", "--consul", "127.0.0.1:1"];
            let arguments = listen.iter().chain(&ports).chain(flags);
            let process = Process::spawn_with(&program, arguments, variables()).unwrap();
            let line = process.stdout_line("listening", LIMIT).await.unwrap();
            addresses.push(field(&line, "grpc").to_owned());
            processes.push(process);
        }
        let program = service_binary("add-service").await.unwrap();
        let addresses = addresses.join(",");
        let ports = [
            "--http-port",
            "0",
            "--grpc-port",
            "0",
            "--static",
            &addresses,
        ];
        let arguments = listen.iter().chain(&ports).chain(add);
        let process = Process::spawn_with(&program, arguments, variables()).unwrap();
        let line = process.stdout_line("listening", LIMIT).await.unwrap();
        let services = Self {
            http: format!("http://{}", field(&line, "http")),
            grpc: field(&line, "grpc").parse().unwrap(),
            add: process,
            trims: processes,
        };
        let client = http_client().unwrap();
        let url = format!("{}/readyz", services.http);
        let ready = async || {
            let answer = client.get(&url).send().await.unwrap().text().await.unwrap();
            (answer == "ready: 2 of 2 instances\n")
                .then_some(())
                .ok_or(answer)
        };
        eventually("two connections", LIMIT, ready).await.unwrap();
        services
    }

    /// Ends all of them in order.
    async fn stop(mut self) {
        for process in self.trims.iter().chain([&self.add]) {
            process.signal(Signal::SIGTERM).unwrap();
        }
        for process in self.trims.iter_mut().chain([&mut self.add]) {
            let status = process.exit(LIMIT).await.unwrap();
            assert!(status.success(), "{}", process.stderr());
        }
    }
}

/// The value in `... name=value ...`.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
    fields.find(|(key, _)| *key == name).unwrap().1
}

/// Checks the span of a trim instance under an attempt.
fn check_trim(spans: &[Span], attempt: &Span) {
    let received = under(spans, &attempt.id, "Recv.pb.Trim.TrimSpace");
    assert_eq!(received.len(), 1, "{spans:#?}");
    let received = received[0];
    assert_eq!(
        (received.service.as_str(), received.kind),
        ("trim-service", SpanKind::Server)
    );
    assert_eq!(received.attribute("rpc.method"), "pb.Trim/TrimSpace");
    let both = [attempt, received].map(|span| span.attribute("server.port").to_owned());
    assert_eq!(both[0], both[1], "the address that the attempt was sent to");
}

#[tokio::test]
async fn a_retried_call_is_a_tree_from_http_to_the_trim_instances_and_is_exported_at_the_end() {
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.over_http().await);
    // Nothing is exported before the end by the clock.
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
    ];
    // An instance that fails takes part until it is ejected, which four calls do not do.
    let faulty: &[&str] = &["--fault", "error=unavailable"];
    let services = Services::start(&variables, [faulty, &[]], &[]).await;
    let answer = http_client()
        .unwrap()
        .post(format!("{}/concat", services.http))
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .body(r#"{"a":"1 0","b":"2 0"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.text().await.unwrap(), r#"{"v":"1020"}"#);
    services.stop().await;

    // One request, two calls, three attempts (round robin: one of the calls begins at the faulty instance),
    // each received.
    let spans = collector.spans(9).await;
    let request = under(&spans, CALLER, "POST /concat");
    assert_eq!(request.len(), 1, "{spans:#?}");
    let request = request[0];
    assert_eq!(
        (request.service.as_str(), request.kind),
        ("add-service", SpanKind::Server)
    );
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/concat"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(request.attribute(name), value);
    }
    let calls = under(&spans, &request.id, "Sent.pb.Trim.TrimSpace");
    assert_eq!(calls.len(), 2, "{spans:#?}");
    let mut attempts_of = Vec::new();
    for call in calls {
        assert_eq!((call.kind, call.status), (SpanKind::Client, StatusCode::Ok));
        for (name, value) in [
            ("rpc.system.name", "grpc"),
            ("rpc.method", "pb.Trim/TrimSpace"),
            ("rpc.response.status_code", "OK"),
        ] {
            assert_eq!(call.attribute(name), value);
        }
        let attempts = under(&spans, &call.id, "Attempt.pb.Trim.TrimSpace");
        for (attempt, previous) in attempts.iter().zip(["0", "1"]) {
            assert_eq!(attempt.attribute("previous-rpc-attempts"), previous);
            assert_eq!(attempt.attribute("transparent-retry"), "false");
            assert_eq!(attempt.attribute("server.address"), "127.0.0.1");
            assert!(call.begin <= attempt.begin && attempt.end <= call.end);
            assert!(attempt.events.contains(&"Outbound message".to_owned()));
            check_trim(&spans, attempt);
        }
        let last = attempts.last().unwrap();
        assert_eq!(last.status, StatusCode::Ok);
        assert!(last.events.contains(&"Inbound message".to_owned()));
        attempts_of.push(attempts);
    }
    attempts_of.sort_by_key(Vec::len);
    assert_eq!(attempts_of.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    let failed = attempts_of[1][0];
    assert_eq!(failed.status, StatusCode::Error);
    assert_eq!(failed.attribute("rpc.response.status_code"), "UNAVAILABLE");
    assert!(
        failed.description.starts_with("UNAVAILABLE, ") && failed.description.contains("--fault"),
        "{failed:#?}"
    );
}

#[tokio::test]
async fn a_hedged_call_has_both_attempts_and_the_slow_one_is_cancelled() {
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.over_grpc().await);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=test"),
    ];
    let slow: &[&str] = &["--fault", "latency=300ms"];
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("trim.json");
    let hedge = r#"{"methodConfig": [{"name": [{}], "discovery": {"hedge": "0.02s"}}]}"#;
    std::fs::write(&config, hedge).unwrap();
    let config = ["--trim-config", config.to_str().unwrap()];
    let services = Services::start(&variables, [slow, &[]], &config).await;
    let mut client = AddClient::new(connect(services.grpc).await);
    let mut request = Request::new(ConcatRequest {
        a: "1 0".into(),
        b: "2 0".into(),
    });
    request.set_timeout(Duration::from_secs(5));
    let context = format!("00-{TRACE}-{CALLER}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", context);
    let answer = client.concat(request).await.unwrap().into_inner();
    assert_eq!(answer.v, "1020");

    // One request, two calls, three attempts. The cancelled one is received too.
    let spans = collector.spans(9).await;
    let request = under(&spans, CALLER, "Recv.pb.Add.Concat");
    assert_eq!(request.len(), 1, "{spans:#?}");
    let calls = under(&spans, &request[0].id, "Sent.pb.Trim.TrimSpace");
    assert_eq!(calls.len(), 2, "{spans:#?}");
    let hedged = calls
        .into_iter()
        .map(|call| under(&spans, &call.id, "Attempt.pb.Trim.TrimSpace"))
        .find(|attempts| attempts.len() == 2)
        .unwrap();
    let slow_first = [("false", "CANCELLED"), ("true", "OK")];
    for (attempt, (hedge, status)) in hedged.iter().zip(slow_first) {
        assert_eq!(attempt.attribute("discovery.hedge"), hedge);
        assert_eq!(attempt.attribute("rpc.response.status_code"), status);
        check_trim(&spans, attempt);
    }
    assert!(hedged[0].begin < hedged[1].begin && hedged[1].begin < hedged[0].end);
    services.stop().await;
}

#[tokio::test]
async fn an_invalid_variable_ends_the_service_with_its_name() {
    let program = service_binary("trim-service").await.unwrap();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "thrift"),
    ];
    let mut process = Process::spawn_with(&program, ["--port", "0"], variables).unwrap();
    assert!(!process.exit(LIMIT).await.unwrap().success());
    let expected = "OTEL_EXPORTER_OTLP_PROTOCOL is thrift: must be http/protobuf or grpc";
    assert!(process.stderr().contains(expected), "{}", process.stderr());
}
