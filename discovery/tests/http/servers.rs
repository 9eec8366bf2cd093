//! Real servers in this process: axum with HTTP/1.1 and HTTP/2.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::{any, get as on_get},
};
use bytes::Bytes;
use discovery::{
    InProcess, Instance, ServedBy,
    http::{Channel, Connections, status_for},
    registry::StaticRegistry,
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::sleep};
use tower::ServiceExt as _;

use crate::{
    answer, ejected, eventually, get,
    memory::{connected, patient},
    post, request, send, text,
};

/// The two versions, with what a caller has to say to have them.
fn versions() -> [(&'static str, Connections); 2] {
    [
        ("HTTP/1.1", Connections::new()),
        ("HTTP/2.0", Connections::new().with_http2_only()),
    ]
}

/// A server that can be stopped in order and started again.
struct Server {
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Server {
    async fn start() -> Self {
        let mut server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            running: None,
        };
        server.restart().await;
        server
    }

    async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, app()).with_graceful_shutdown(async {
            let _stopped_or_dropped = stopped.await;
        });
        let task = tokio::spawn(async move { serve.await.unwrap() });
        self.running = Some((stop, task));
    }

    async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
    }
}

fn app() -> Router {
    Router::new()
        .route("/echo", any(echo))
        .route("/trailers", any(trailers))
        .route("/stream", on_get(events))
        .route(
            "/slow",
            on_get(async || sleep(Duration::from_millis(5)).await),
        )
}

/// Says what it has received.
async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().is_some_and(|all| all.contains_key("x-sum"));
    let host = parts
        .headers
        .get(header::HOST)
        .map(|host| host.to_str().unwrap().to_owned());
    let length = parts.headers.get(header::CONTENT_LENGTH).cloned();
    let text = format!(
        "{:?} {} {} host={} length={length:?} trailers={trailers} body={:?}",
        parts.version,
        parts.method,
        parts.uri.path_and_query().unwrap(),
        host.or_else(|| parts.uri.authority().map(ToString::to_string))
            .unwrap_or_default(),
        String::from_utf8_lossy(&body.to_bytes()),
    );
    (
        [("x-agent", parts.headers[header::USER_AGENT].clone())],
        text,
    )
        .into_response()
}

async fn trailers() -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "17".parse().unwrap());
    let frames = stream::iter([
        Ok::<_, std::io::Error>(Frame::data(Bytes::from("text"))),
        Ok(Frame::trailers(trailers)),
    ]);
    let body = Body::new(StreamBody::new(frames));
    ([(header::TRAILER, "x-sum")], body).into_response()
}

/// A stream that goes on for as long as it is read.
async fn events() -> Response {
    let events = stream::unfold(0, async |nth| {
        sleep(Duration::from_millis(1)).await;
        Some((Ok::<_, std::io::Error>(format!("{nth};")), nth + 1))
    });
    Body::from_stream(events).into_response()
}

async fn channel(servers: &[Server], connections: Connections) -> Channel {
    let instances = servers
        .iter()
        .map(|server| Instance::new("127.0.0.1", server.address.port()).unwrap());
    let registry = StaticRegistry::new(instances);
    let builder = Channel::from_registry(Arc::new(registry), "orders");
    connected(builder.retry(patient()).factory(connections)).await
}

#[tokio::test]
async fn a_server_receives_method_path_query_host_and_body_over_both_versions() {
    let servers = [Server::start().await];
    let own = servers[0].address;
    for (version, connections) in versions() {
        let channel = channel(&servers, connections).await;
        let (status, text) = answer(&channel, get("/echo?q=a%20b&c")).await;
        let expected = format!(
            "{version} GET /echo?q=a%20b&c host={own} length=None trailers=false body=\"\""
        );
        assert_eq!((status, text), (200, expected));
        let (_, text) = answer(&channel, post("http://orders.example/echo")).await;
        let expected = format!(
            "{version} POST /echo host=orders.example length=Some(\"4\") trailers=false body=\"text\""
        );
        assert_eq!(text, expected);
        let mut named = get("/echo");
        named
            .headers_mut()
            .insert(header::HOST, "by.header".parse().unwrap());
        let (_, text) = answer(&channel, named).await;
        assert!(text.contains("host=by.header"), "{text}");
        let (status, text) = answer(&channel, request(Method::HEAD, "/echo", "")).await;
        assert_eq!((status, text.as_str()), (200, ""));
        assert_eq!(answer(&channel, get("/none")).await.0, 404);
        let response = send(&channel, get("/echo")).await.unwrap();
        let agent = response.headers()["x-agent"].to_str().unwrap();
        assert!(agent.starts_with("discovery/"), "{agent}");
        let ServedBy(instance) = response.extensions().get().cloned().unwrap();
        assert_eq!(instance.port, own.port());
    }
}

#[tokio::test]
async fn trailers_pass_through_in_both_directions() {
    let servers = [Server::start().await];
    for (version, connections) in versions() {
        let channel = channel(&servers, connections).await;
        let mut asks = get("/trailers");
        asks.headers_mut()
            .insert(header::TE, "trailers".parse().unwrap());
        let response = send(&channel, asks).await.unwrap();
        let whole = response.into_body().collect().await.unwrap();
        let sum = whole.trailers().map(|trailers| trailers["x-sum"].clone());
        assert_eq!(sum.unwrap(), "17", "{version}");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "17".parse().unwrap());
        let body = Full::new(Bytes::from("text")).with_trailers(async move { Some(Ok(trailers)) });
        let sends = http::Request::put("/echo")
            .header(header::TRAILER, "x-sum")
            .body(body);
        let response = channel.clone().oneshot(sends.unwrap()).await.unwrap();
        let text = text(response).await;
        assert!(
            text.contains("trailers=true body=\"text\""),
            "{version}: {text}"
        );
    }
}

#[tokio::test]
async fn a_stream_arrives_as_it_is_sent_and_an_upload_leaves_as_it_is_made() {
    let servers = [Server::start().await];
    for (version, connections) in versions() {
        let channel = channel(&servers, connections).await;
        let response = send(&channel, get("/stream")).await.unwrap();
        let mut received = String::new();
        let mut data = response.into_body().into_data_stream();
        while !received.contains("20;") {
            let part = data.next().await.unwrap().unwrap();
            received.push_str(&String::from_utf8_lossy(&part));
        }
        drop(data);
        let parts = stream::iter(0..200).then(async |nth| {
            sleep(Duration::from_micros(100)).await;
            Ok::<_, std::io::Error>(Frame::data(Bytes::from(format!("{nth:04}"))))
        });
        let upload = http::Request::post("/echo").body(StreamBody::new(Box::pin(parts)));
        let response = channel.clone().oneshot(upload.unwrap()).await.unwrap();
        let text = text(response).await;
        assert!(
            text.contains("0000") && text.contains("0199"),
            "{version}: {text}"
        );
        eventually(|| channel.endpoints()[0].in_flight == 0).await;
    }
}

#[tokio::test]
async fn a_rolling_restart_under_load_costs_no_get_over_both_versions() {
    for (version, connections) in versions() {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(Server::start().await);
        }
        let channel = channel(&servers, connections).await;
        let (done, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (channel, done, calls) =
                    (channel.clone(), Arc::clone(&done), Arc::clone(&calls));
                tokio::spawn(async move {
                    while !done.load(Ordering::SeqCst) {
                        let (status, _) = answer(&channel, get("/slow")).await;
                        assert_eq!(status, 200);
                        calls.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for server in &mut servers {
            let before = calls.load(Ordering::SeqCst);
            eventually(|| calls.load(Ordering::SeqCst) > before + 30).await;
            server.stop().await;
            let before = calls.load(Ordering::SeqCst);
            eventually(|| calls.load(Ordering::SeqCst) > before + 30).await;
            server.restart().await;
            channel.wait_for(|status| status.ready == 3).await.unwrap();
        }
        done.store(true, Ordering::SeqCst);
        for caller in callers {
            caller
                .await
                .unwrap_or_else(|error| panic!("{version}: {error}"));
        }
        assert_eq!(ejected(&channel), 0);
    }
}

#[tokio::test]
async fn a_request_of_reqwest_goes_through_the_channel_as_it_is() {
    let servers = [Server::start().await];
    let channel = channel(&servers, Connections::new()).await;
    let client = testkit::http_client().unwrap();
    let request = client.post("http://orders.example/echo?q=1").body("text");
    let request = http::Request::try_from(request.build().unwrap()).unwrap();
    let response = channel.oneshot(request.map(Body::new)).await.unwrap();
    let text = text(response).await;
    let expected = "POST /echo?q=1 host=orders.example length=Some(\"4\")";
    assert!(text.contains(expected), "{text}");
}

#[tokio::test]
async fn servers_in_this_process_take_the_place_of_real_ones() {
    let servers = InProcess::new(app());
    let instances = ["a:1", "b:1"].map(|name| Instance::parse(name).unwrap());
    let registry = Arc::new(StaticRegistry::new(instances));
    let builder = Channel::from_registry(registry, "orders").factory(servers.clone());
    let channel = connected(builder).await;
    servers.stop("a:1");
    for _ in 0..10 {
        let (status, text) = answer(&channel, post("/echo")).await;
        assert!(status == 200 && text.contains("body=\"text\""), "{text}");
    }
}

#[tokio::test]
async fn a_proxy_of_axum_passes_its_requests_and_answers_through_the_channel() {
    let servers = [Server::start().await];
    let channel = channel(&servers, Connections::new()).await;
    let proxy = Router::new()
        .fallback(
            async |State(channel): State<Channel>, mut request: Request| {
                request.headers_mut().remove(header::HOST);
                match channel.oneshot(request).await {
                    Ok(response) => response.map(Body::new),
                    Err(error) => (status_for(&error), error.to_string()).into_response(),
                }
            },
        )
        .with_state(channel);
    let call = async |uri: &str| {
        let request = http::Request::post(uri).header(header::USER_AGENT, "curl");
        let request = request.body(Body::from("text")).unwrap();
        let response = proxy.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let (status, text) = call("/echo?a").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        text.contains("POST /echo?a") && text.contains("body=\"text\""),
        "{text}"
    );
    assert_eq!(call("/none").await.0, StatusCode::NOT_FOUND);
}
