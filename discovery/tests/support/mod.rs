//! Trim servers in this process, on real sockets, whose behaviour a test can change.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub(crate) mod fallible;
pub(crate) mod grpc_series;
pub(crate) mod memory;
pub(crate) mod recorder;
pub(crate) mod scripted;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{Instance, registry::StaticRegistry};
use proto::{
    TrimRequest, TrimResponse,
    trim_server::{Trim, TrimServer as TrimService},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::{
    Request, Response, Status, codec::CompressionEncoding, metadata::MetadataMap, transport::Server,
};

/// Waits until the condition holds. Fails the test if it does not within 20 seconds.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let limit = Duration::from_secs(20);
    testkit::eventually("the condition", limit, async || condition())
        .await
        .unwrap();
}

/// A port that nothing listens on. Taken from the kernel and given back.
pub(crate) fn refused_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A registry of these servers.
pub(crate) fn fixed<'a>(servers: impl IntoIterator<Item = &'a TrimServer>) -> StaticRegistry {
    StaticRegistry::new(servers.into_iter().map(TrimServer::instance))
}

/// A faulty server as an instance.
pub(crate) fn faulty(server: &testkit::faulty::FaultyServer) -> Instance {
    Instance::new("127.0.0.1", server.address().port()).unwrap()
}

/// The handling of a call by a server; may wait.
pub(crate) type Behaviour = Arc<
    dyn Fn(usize) -> futures_util::future::BoxFuture<'static, Result<(), Status>> + Send + Sync,
>;

/// A trim service in this process.
pub(crate) struct TrimServer {
    address: SocketAddr,
    state: Arc<State>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// Calls taken at a time on one connection.
    at_once: Option<u32>,
}

struct State {
    calls: AtomicUsize,
    connections: Arc<AtomicUsize>,
    connections_made: Arc<AtomicUsize>,
    behaviour: Mutex<Option<Behaviour>>,
    metadata: Mutex<Vec<MetadataMap>>,
}

struct Service(Arc<State>);

#[tonic::async_trait]
impl Trim for Service {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        let nth = self.0.calls.fetch_add(1, Ordering::SeqCst);
        let metadata = request.metadata().clone();
        self.0.metadata.lock().unwrap().push(metadata);
        let behaviour = self.0.behaviour.lock().unwrap().clone();
        if let Some(behaviour) = behaviour {
            behaviour(nth).await?;
        }
        let s = request.into_inner().s.replace(' ', "");
        Ok(Response::new(TrimResponse { s }))
    }
}

impl TrimServer {
    pub(crate) async fn start() -> Self {
        Self::start_for(None).await
    }

    /// One that takes so many calls at a time on one connection.
    pub(crate) async fn start_for(at_once: Option<u32>) -> Self {
        let mut server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            state: Arc::new(State {
                calls: AtomicUsize::new(0),
                connections: Arc::default(),
                connections_made: Arc::default(),
                behaviour: Mutex::new(None),
                metadata: Mutex::default(),
            }),
            running: None,
            at_once,
        };
        server.restart().await;
        server
    }

    pub(crate) async fn start_many(count: usize) -> Vec<Self> {
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(Self::start().await);
        }
        servers
    }

    /// Serves again, on the same port.
    pub(crate) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let connections = Arc::clone(&self.state.connections);
        let made = Arc::clone(&self.state.connections_made);
        let incoming = TcpListenerStream::new(listener).map(move |stream| {
            made.fetch_add(1, Ordering::SeqCst);
            stream.map(|stream| counted::Counted::new(stream, &connections))
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let service = TrimService::new(Service(Arc::clone(&self.state)))
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let (_reporter, health) = tonic_health::server::health_reporter();
        let at_once = self.at_once;
        let task = tokio::spawn(async move {
            Server::builder()
                .max_concurrent_streams(at_once)
                .add_service(service)
                .add_service(health)
                .serve_with_incoming_shutdown(incoming, async {
                    let _told_or_dropped = stopped.await;
                })
                .await
                .unwrap();
        });
        self.running = Some((stop, task));
    }

    /// Ends gracefully: GOAWAY, then the calls in flight.
    pub(crate) async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
    }

    pub(crate) fn instance(&self) -> Instance {
        Instance::new("127.0.0.1", self.address.port()).unwrap()
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Connections there ever were.
    pub(crate) fn connections_made(&self) -> usize {
        self.state.connections_made.load(Ordering::SeqCst)
    }

    /// The `grpc-timeout` of every call that had one.
    pub(crate) fn timeouts(&self) -> Vec<String> {
        self.metadata("grpc-timeout")
    }

    /// The values of this metadata key, of every call that had it.
    pub(crate) fn metadata(&self, key: &str) -> Vec<String> {
        let calls = self.state.metadata.lock().unwrap();
        let values = calls.iter().filter_map(|metadata| metadata.get(key));
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    }

    /// Sets the handling of calls from now on; the argument is the call's number.
    pub(crate) fn behave<F, O>(&self, behaviour: F)
    where
        F: Fn(usize) -> O + Send + Sync + 'static,
        O: Future<Output = Result<(), Status>> + Send + 'static,
    {
        *self.state.behaviour.lock().unwrap() = Some(Arc::new(move |nth| Box::pin(behaviour(nth))));
    }

    /// Well again.
    pub(crate) fn recover(&self) {
        *self.state.behaviour.lock().unwrap() = None;
    }
}

mod counted {
    //! A TCP stream that counts itself.

    use std::{
        io,
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll},
    };

    use tokio::{
        io::{AsyncRead, AsyncWrite, ReadBuf},
        net::TcpStream,
    };
    use tonic::transport::server::{Connected, TcpConnectInfo};

    pub(super) struct Counted {
        stream: TcpStream,
        count: Arc<AtomicUsize>,
    }

    impl Counted {
        pub(super) fn new(stream: TcpStream, count: &Arc<AtomicUsize>) -> Self {
            count.fetch_add(1, Ordering::SeqCst);
            Self {
                stream,
                count: Arc::clone(count),
            }
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Connected for Counted {
        type ConnectInfo = TcpConnectInfo;

        fn connect_info(&self) -> TcpConnectInfo {
            self.stream.connect_info()
        }
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}
