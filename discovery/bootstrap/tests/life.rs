//! The life of a server with several gRPC services and an HTTP listener, with a registry in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bootstrap::{Endless, Listen, RequestBody, Server, Services, Stage};
use bytes::Bytes;
use discovery::{
    Instance,
    registry::{
        Check, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
    },
};
use futures_util::future::{BoxFuture, pending};
use http_body::{Body, Frame};
use proto::{
    ConcatRequest, ConcatResponse, SumRequest, SumResponse, TrimRequest, TrimResponse,
    add_client::AddClient,
    add_server::{Add, AddServer},
    trim_client::TrimClient,
    trim_server::{Trim, TrimServer},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};
use tonic::{
    Request, Response, Status,
    service::{AxumRouter, Routes},
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const LIMIT: Duration = Duration::from_secs(20);

struct Echo;

#[tonic::async_trait]
impl Trim for Echo {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        let s = request.into_inner().s;
        Ok(Response::new(TrimResponse { s }))
    }
}

#[tonic::async_trait]
impl Add for Echo {
    async fn sum(&self, request: Request<SumRequest>) -> Result<Response<SumResponse>, Status> {
        let SumRequest { a, b } = request.into_inner();
        Ok(Response::new(SumResponse {
            v: a + b,
            err: String::new(),
        }))
    }

    async fn concat(&self, _: Request<ConcatRequest>) -> Result<Response<ConcatResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let service = service.to_owned();
    let mut client = HealthClient::new(channel.clone());
    let response = client.check(HealthCheckRequest { service }).await.unwrap();
    response.into_inner().status()
}

/// Both services answer, and each reports this health, as does the server as a whole.
async fn serves(address: SocketAddr, status: ServingStatus) {
    let channel = connect(address).await;
    let request = TrimRequest { s: "a b".into() };
    let answer = TrimClient::new(channel.clone()).trim_space(request).await;
    assert_eq!(answer.unwrap().into_inner().s, "a b");
    let answer = AddClient::new(channel.clone())
        .sum(SumRequest { a: 1, b: 2 })
        .await;
    assert_eq!(answer.unwrap().into_inner().v, 3);
    for service in ["", "pb.Trim", "pb.Add"] {
        assert_eq!(health(&channel, service).await, status, "{service:?}");
    }
}

/// A registry that looks at the server whenever it is called.
#[derive(Clone, Default)]
struct Observer {
    calls: Arc<Mutex<Vec<&'static str>>>,
    registered: Arc<Mutex<Option<oneshot::Sender<SocketAddr>>>>,
}

impl Registry for Observer {
    fn name(&self) -> &'static str {
        "observer"
    }

    fn instancer(&self, _: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        Err(RegistryError::Unsupported {
            registry: self.name().to_owned(),
            action: "watch a service".to_owned(),
        })
    }

    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Ok(Arc::new(Entry {
            observer: self.clone(),
            instance: registration.instance,
        }))
    }
}

struct Entry {
    observer: Observer,
    instance: Instance,
}

impl Entry {
    async fn observe(&self, call: &'static str, status: ServingStatus) -> SocketAddr {
        let address = self.instance.authority().parse().unwrap();
        serves(address, status).await;
        self.observer.calls.lock().unwrap().push(call);
        address
    }
}

impl RegistrationClient for Entry {
    fn id(&self) -> &str {
        &self.instance.id
    }

    fn registry(&self) -> &'static str {
        "observer"
    }

    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(async {
            let address = self.observe("register", ServingStatus::Serving).await;
            let registered = self.observer.registered.lock().unwrap().take();
            registered.unwrap().send(address).unwrap();
            Ok(())
        })
    }

    fn maintain(&self) -> BoxFuture<'_, RegistryError> {
        Box::pin(pending())
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(async {
            self.observe("deregister", ServingStatus::NotServing).await;
            Ok(())
        })
    }
}

fn registration(bound: &[SocketAddr]) -> anyhow::Result<Registration> {
    let instance = Instance::named("echo", bound[0].ip(), bound[0].port())?;
    Ok(Registration::new(instance, Check::None))
}

fn services() -> Services {
    Services::new(proto::FILE_DESCRIPTOR_SET)
        .add(TrimServer::new(Echo))
        .add(AddServer::new(Echo))
}

fn local() -> Listen {
    Listen::on([127, 0, 0, 1], 0)
}

/// Runs a server until the sender is used.
fn run(server: Server) -> (oneshot::Sender<()>, JoinHandle<anyhow::Result<()>>) {
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.run_until(async { stopped.await.unwrap() }));
    (stop, task)
}

#[tokio::test]
async fn it_registers_while_it_serves_and_deregisters_while_it_still_answers() {
    let (sender, registered) = oneshot::channel();
    let observer = Observer {
        registered: Arc::new(Mutex::new(Some(sender))),
        ..Observer::default()
    };
    let server = Server::new()
        .drain(Duration::from_millis(400))
        .grpc(local(), services())
        .http(local(), AxumRouter::new())
        .register(Arc::new(observer.clone()), registration);
    let stage = server.stage();
    assert_eq!(*stage.borrow(), Stage::Serving);
    let (stop, task) = run(server);
    let address = timeout(LIMIT, registered).await.unwrap().unwrap();
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert_eq!(*observer.calls.lock().unwrap(), ["register", "deregister"]);
    assert_eq!(*stage.borrow(), Stage::Finishing);
    // The port is free again.
    TcpListener::bind(address).await.unwrap();
}

#[tokio::test]
async fn several_services_are_listed_by_reflection() {
    let of_tonic = Services::from_routes(
        Routes::new(TrimServer::new(Echo)).add_service(AddServer::new(Echo)),
        ["pb.Trim", "pb.Add"],
        proto::FILE_DESCRIPTOR_SET,
    );
    for services in [services(), of_tonic] {
        assert_eq!(services.names(), ["pb.Trim", "pb.Add"]);
        let (sender, serving) = oneshot::channel();
        let server = Server::new()
            .drain(Duration::from_millis(100))
            .grpc(local(), services)
            .on_serving(|serving| {
                sender.send(serving.addresses[0]).unwrap();
                Ok(())
            });
        let (stop, task) = run(server);
        let address = timeout(LIMIT, serving).await.unwrap().unwrap();
        serves(address, ServingStatus::Serving).await;
        let listed = testkit::reflected_services(connect(address).await);
        for mut services in listed.await.unwrap() {
            services.sort();
            assert_eq!(services, ["grpc.health.v1.Health", "pb.Add", "pb.Trim"]);
        }
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
    }
}

/// Answers every request with a body that has no end.
#[derive(Clone)]
struct Streaming {
    is_endless: bool,
}

struct NoEnd;

impl Body for NoEnd {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

impl tower_service::Service<http::Request<RequestBody>> for Streaming {
    type Response = http::Response<NoEnd>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<RequestBody>) -> Self::Future {
        let mut response = http::Response::new(NoEnd);
        if self.is_endless {
            response.extensions_mut().insert(Endless);
        }
        std::future::ready(Ok(response))
    }
}

#[tokio::test]
async fn a_response_without_an_end_is_not_an_unfinished_request() {
    for is_endless in [false, true] {
        let (sender, serving) = oneshot::channel();
        let server = Server::new()
            .drain(Duration::from_millis(100))
            .http(local(), Streaming { is_endless })
            .on_serving(|serving| {
                sender.send(serving.addresses[0]).unwrap();
                Ok(())
            });
        let (stop, task) = run(server);
        let address = timeout(LIMIT, serving).await.unwrap().unwrap();
        let client = testkit::http_client().unwrap();
        let request = client.get(format!("http://{address}/"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        stop.send(()).unwrap();
        let ended = task.await.unwrap();
        assert_eq!(ended.is_ok(), is_endless, "{ended:?}");
        drop(response);
    }
}

#[tokio::test]
async fn an_error_before_it_serves_ends_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let on_taken = || Listen::from(address);
    let server = |listen: Listen| Server::new().http(listen, AxumRouter::new());
    for (server, reason) in [
        (server(on_taken()), format!("cannot listen on {address}: ")),
        (
            server(on_taken().flag("--port")),
            format!("cannot listen on {address}; choose another port with --port: "),
        ),
        (
            server(local()).register(Arc::new(Observer::default()), |_| {
                anyhow::bail!("no address to advertise")
            }),
            "no address to advertise".to_owned(),
        ),
        (
            server(local()).on_serving(|_| anyhow::bail!("standard output is closed")),
            "standard output is closed".to_owned(),
        ),
        (
            Server::new().grpc(
                local(),
                Services::from_routes(Routes::default(), ["pb.No"], &[0xff]),
            ),
            "cannot offer reflection of pb.No".to_owned(),
        ),
    ] {
        let error = server.run_until(pending()).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(&reason), "{error}");
    }
}

#[test]
fn outside_a_runtime_it_is_an_error() {
    for life in [
        futures_util::FutureExt::boxed(Server::new().run()),
        futures_util::FutureExt::boxed(Server::new().run_until(pending())),
    ] {
        let error = futures_util::FutureExt::now_or_never(life);
        let error = format!("{:#}", error.unwrap().unwrap_err());
        assert!(error.contains("no reactor running"), "{error}");
    }
}
