//! Servers in this process, for tests of the code that calls them.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tonic::body::Body;
use tower_service::Service;

use super::{Channel, ChannelBuilder};
use crate::{
    BoxError,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    instance::Instance,
    registry::StaticRegistry,
};

const STOPPED: &str = "the in-process server is stopped";

impl Channel {
    /// A channel to one instance, which is this service in the same process: for tests. See
    /// [`InProcess`] for several instances and for failures.
    ///
    /// ```
    /// # use proto::{TrimRequest, TrimResponse, trim_client::TrimClient, trim_server::{Trim, TrimServer}};
    /// # use tonic::{Request, Response, Status};
    /// use discovery::Channel;
    ///
    /// struct Fake;
    ///
    /// #[tonic::async_trait]
    /// impl Trim for Fake {
    ///     async fn trim_space(
    ///         &self,
    ///         _: Request<TrimRequest>,
    ///     ) -> Result<Response<TrimResponse>, Status> {
    ///         Ok(Response::new(TrimResponse { s: "fake".into() }))
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let channel = Channel::in_process(TrimServer::new(Fake)).build()?;
    /// let answer = TrimClient::new(channel).trim_space(TrimRequest::default()).await?;
    /// assert_eq!(answer.into_inner().s, "fake");
    /// # Ok(())
    /// # }
    /// ```
    pub fn in_process<S, B>(service: S) -> ChannelBuilder
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // The address is valid, so this is a list of one.
        let registry = StaticRegistry::new(Instance::new("localhost", 1));
        Self::from_registry(Arc::new(registry), "in-process").factory(InProcess::new(service))
    }
}

/// Connects to services in this process, without a network and without HTTP/2: for tests.
///
/// It takes what a tonic server takes: a generated server, an intercepted one, or
/// [`Routes`](https://docs.rs/tonic/latest/tonic/service/struct.Routes.html). The instances come
/// from a registry as usual; the address of an instance is not used. [`stop`](Self::stop) and
/// [`start`](Self::start) simulate the end and the restart of an instance. Clones share this state.
///
/// ```
/// # use std::sync::Arc;
/// # use discovery::{BuildError, Channel, InProcess, Instance, registry::StaticRegistry};
/// # use proto::trim_server::{Trim, TrimServer};
/// # fn example(service: TrimServer<impl Trim>) -> Result<(), Box<dyn std::error::Error>> {
/// let instances = [Instance::parse("a:1")?, Instance::parse("b:1")?];
/// let servers = InProcess::new(service);
/// let channel = Channel::from_registry(Arc::new(StaticRegistry::new(instances)), "trim_service")
///     .factory(servers.clone())
///     .build()?;
/// servers.stop("a:1");
/// // Calls are now answered by `b:1`.
/// # Ok(())
/// # }
/// ```
pub struct InProcess<S> {
    make: Arc<dyn Fn(&Instance) -> S + Send + Sync>,
    processes: Arc<Processes>,
}

impl<S> InProcess<S> {
    /// Every instance is this service.
    #[must_use]
    pub fn new(service: S) -> Self
    where
        S: Clone + Send + 'static,
    {
        let service = Mutex::new(service);
        Self::per_instance(move |_| lock(&service).clone())
    }

    /// Each instance is the service that this function makes of it, once for every connection.
    #[must_use]
    pub fn per_instance(make: impl Fn(&Instance) -> S + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(make),
            processes: Arc::default(),
        }
    }

    /// Stops the instance with this ID, as if its process were killed: its connection breaks, calls
    /// in flight fail, and new connections are refused.
    pub fn stop(&self, id: &str) {
        lock(&self.processes.0).insert(id.to_owned(), None);
    }

    /// Starts the instance with this ID again.
    pub fn start(&self, id: &str) {
        let mut processes = lock(&self.processes.0);
        if matches!(processes.get(id), Some(None)) {
            processes.remove(id);
        }
    }
}

impl<S> Clone for InProcess<S> {
    fn clone(&self) -> Self {
        Self {
            make: Arc::clone(&self.make),
            processes: Arc::clone(&self.processes),
        }
    }
}

impl<S> fmt::Debug for InProcess<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

/// The instances by ID: the sender that closes their connections when dropped, `None` if stopped.
#[derive(Default)]
struct Processes(Mutex<HashMap<String, Option<watch::Sender<()>>>>);

impl Processes {
    /// Closes when the instance is stopped; `None` if it is stopped now.
    fn connect(&self, id: &str) -> Option<watch::Receiver<()>> {
        let mut processes = lock(&self.0);
        let process = processes
            .entry(id.to_owned())
            .or_insert_with(|| Some(watch::Sender::new(())));
        process.as_ref().map(watch::Sender::subscribe)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Completes when the sender is dropped.
async fn closed(mut receiver: watch::Receiver<()>) {
    while receiver.changed().await.is_ok() {}
}

impl<S, B> Factory for InProcess<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        let Some(process) = self.processes.connect(&instance.id) else {
            let refused = ConnectError::Connect(STOPPED.into());
            return std::future::ready(Err(refused)).boxed();
        };
        let (open, connection) = watch::channel(());
        let transport = InProcessTransport {
            service: Mutex::new((self.make)(instance)),
            process: process.clone(),
            connection,
        };
        let processes = Arc::clone(&self.processes);
        let driver = async move {
            // The connection outlives the factory, as a connection to another process does.
            let _processes = processes;
            tokio::select! {
                biased;
                () = closed(process) => Err(STOPPED.into()),
                // The transport is dropped and all calls have ended.
                () = open.closed() => Ok(()),
            }
        };
        std::future::ready(Ok(Connection::new(transport, driver))).boxed()
    }
}

struct InProcessTransport<S> {
    service: Mutex<S>,
    /// Closes when the instance is stopped, before the driver has seen it.
    process: watch::Receiver<()>,
    /// Closes when the driver ends.
    connection: watch::Receiver<()>,
}

impl<S, B> Transport for InProcessTransport<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn send(
        &self,
        request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        if self.is_closed() {
            return std::future::ready(Err(SendError::unprocessed(STOPPED))).boxed();
        }
        let mut request = request.map(Body::new);
        *request.version_mut() = Version::HTTP_2;
        let mut service = lock(&self.service).clone();
        let connection = self.connection.clone();
        async move {
            let answer = async {
                poll_fn(|cx| service.poll_ready(cx)).await?;
                service.call(request).await
            };
            let response = tokio::select! {
                biased;
                () = closed(connection.clone()) => return Err(SendError::new(STOPPED)),
                response = answer => response.map_err(SendError::new)?,
            };
            Ok(response.map(|body| {
                let body = body.map_err(Into::into).boxed_unsync();
                let closed = closed(connection).boxed();
                ResponseBody { body, closed }.boxed_unsync()
            }))
        }
        .boxed()
    }

    fn is_closed(&self) -> bool {
        self.process.has_changed().is_err() || self.connection.has_changed().is_err()
    }
}

/// The service's body, which fails when the connection closes.
struct ResponseBody {
    body: TransportBody,
    closed: BoxFuture<'static, ()>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(STOPPED.into())));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
