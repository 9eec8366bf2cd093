//! The life of a server, in one call.

use std::{
    error::Error,
    future::Future,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use discovery::{
    Registrar, chain,
    limit::Limiter,
    registry::{Registration, RegistrationClient, Registry},
};
use futures_util::future::{BoxFuture, join_all};
use http::{Request, Response};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use crate::{
    grpc::{Reported, Services},
    limit::{default_limit, default_limit_per_peer},
    limits::Limits,
    otlp,
    request_body::RequestBody,
    serve::{Protocol, Settings, serve},
    signals::Shutdown,
    supervision::{Registered, Reload, Supervision},
    tls::ServerTls,
    traced::Traced,
};

/// Time limit of a deregistration.
const DEREGISTER: Duration = Duration::from_secs(2);
/// Time between the end of the drain and the end of the process, for the limit of the service manager.
const EXIT: Duration = Duration::from_secs(1);

/// The phase of a server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Accepts requests.
    Serving,
    /// Accepts requests, and reports to health checks that it is stopping.
    Leaving,
    /// Finishes the accepted requests.
    Finishing,
}

/// An address to listen on.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    address: SocketAddr,
    flag: Option<&'static str>,
    plain: bool,
}

impl Listen {
    /// The address `ip:port`. Port 0 chooses a free port.
    #[must_use]
    pub fn on(ip: impl Into<IpAddr>, port: u16) -> Self {
        (ip, port).into()
    }

    /// The flag that sets the port. The error about a port in use names it.
    #[must_use]
    pub fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    /// No TLS on this port, whatever the [server](Server::tls) has: for a port of operators.
    #[must_use]
    pub fn without_tls(mut self) -> Self {
        self.plain = true;
        self
    }

    async fn bind(self) -> anyhow::Result<TcpListener> {
        TcpListener::bind(self.address).await.with_context(|| {
            let remedy = self.flag.map_or_else(String::new, |flag| {
                format!("; choose another port with {flag}")
            });
            format!("cannot listen on {}{remedy}", self.address)
        })
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            flag: None,
            plain: false,
        }
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Listen {
    fn from(address: (I, u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

/// Serves gRPC and HTTP, with the whole life of a service around it.
///
/// [`run`](Self::run) binds all listeners, serves, reports healthy and registers. After SIGINT,
/// SIGTERM, SIGHUP or SIGQUIT it reports unhealthy, deregisters, waits until clients have seen that,
/// finishes the accepted requests and returns. A second signal ends the process at once.
///
/// Under systemd it reports that it is ready once each registration was tried, its status, that it runs
/// (for the watchdog), and that it stops (`sd_notify(3)`).
///
/// ```no_run
/// use bootstrap::{Server, Services, values::advertised};
/// use discovery::{Instance, registry::{self, Check, Registration}};
/// # use proto::{
/// #     ConcatRequest, ConcatResponse, SumRequest, SumResponse, TrimRequest, TrimResponse,
/// #     add_server::{Add, AddServer}, trim_server::{Trim, TrimServer},
/// # };
/// # use tonic::{Request, Response, Status};
/// # struct MyTrim;
/// # #[tonic::async_trait]
/// # impl Trim for MyTrim {
/// #     async fn trim_space(&self, _: Request<TrimRequest>) -> Result<Response<TrimResponse>, Status> {
/// #         Err(Status::unimplemented("example"))
/// #     }
/// # }
/// # struct MyAdd;
/// # #[tonic::async_trait]
/// # impl Add for MyAdd {
/// #     async fn sum(&self, _: Request<SumRequest>) -> Result<Response<SumResponse>, Status> {
/// #         Err(Status::unimplemented("example"))
/// #     }
/// #     async fn concat(&self, _: Request<ConcatRequest>) -> Result<Response<ConcatResponse>, Status> {
/// #         Err(Status::unimplemented("example"))
/// #     }
/// # }
///
/// fn main() -> anyhow::Result<()> {
///     let services = Services::new(proto::FILE_DESCRIPTOR_SET)
///         .add(TrimServer::new(MyTrim))
///         .add(AddServer::new(MyAdd));
///     bootstrap::block_on(async {
///         let consul = registry::connect("consul://localhost:8500")?;
///         Server::new()
///             .grpc(([0, 0, 0, 0], 8975), services)
///             .register(consul, |bound| {
///                 let ip = advertised(None, bound[0].ip())?;
///                 let instance = Instance::named("my_service", ip, bound[0].port())?;
///                 Ok(Registration::new(instance, Check::grpc()))
///             })
///             .run()
///             .await
///     })
/// }
/// ```
#[must_use = "a server does nothing until it runs"]
pub struct Server {
    drain: Duration,
    limits: Limits,
    tls: Option<ServerTls>,
    limiter: Option<Arc<Limiter>>,
    listeners: Vec<(Listen, Serve)>,
    registrations: Vec<Register>,
    on_serving: Vec<OnServing>,
    reload: Option<Reload>,
    stage: watch::Sender<Stage>,
}

/// A server that accepts requests, for [`Server::on_serving`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Serving {
    /// The addresses of the listeners, in the order they were added.
    pub addresses: Vec<SocketAddr>,
    /// The IDs of the instances to register, in the order they were added.
    pub instances: Vec<String>,
}

/// The protocol and the service of a listener.
enum Serve {
    Grpc(Services),
    Http(ServeHttp),
}

/// Serves HTTP on a listener.
type ServeHttp = Box<
    dyn FnOnce(TcpListener, Settings, BoxFuture<'static, ()>) -> BoxFuture<'static, Served> + Send,
>;

type Served = anyhow::Result<()>;

/// Prepares a registration once the addresses are known.
type Register =
    Box<dyn FnOnce(&[SocketAddr]) -> anyhow::Result<Arc<dyn RegistrationClient>> + Send>;

type OnServing = Box<dyn FnOnce(&Serving) -> anyhow::Result<()> + Send>;

impl Server {
    /// A server without listeners, with a drain of two seconds.
    pub fn new() -> Self {
        Self {
            drain: Duration::from_secs(2),
            limits: Limits::default(),
            tls: None,
            limiter: None,
            listeners: Vec::new(),
            registrations: Vec::new(),
            on_serving: Vec::new(),
            reload: None,
            stage: watch::Sender::new(Stage::Serving),
        }
    }

    /// The time from the deregistration to the end. In its first quarter the server still accepts
    /// requests, from clients that have not seen the change yet. In the rest it finishes them.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// The limits of what clients may take, for each listener.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves TLS on all ports, except those [without](Listen::without_tls). Default: no TLS.
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Limits the gRPC calls under way on all listeners together. Calls over the limit end at once with
    /// `RESOURCE_EXHAUSTED`; health and reflection are never refused. HTTP routes can use the same
    /// limiter for themselves. `None`, the default: no limit.
    pub fn limiter(mut self, limiter: Option<Arc<Limiter>>) -> Self {
        self.limiter = limiter;
        self
    }

    /// Serves gRPC services, with the standard health service and reflection, over HTTP/2.
    pub fn grpc(mut self, listen: impl Into<Listen>, services: Services) -> Self {
        self.listeners.push((listen.into(), Serve::Grpc(services)));
        self
    }

    /// Serves HTTP/1.1 and HTTP/2, for example an axum router.
    pub fn http<S, B>(mut self, listen: impl Into<Listen>, service: S) -> Self
    where
        S: tower_service::Service<Request<RequestBody>, Response = Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let start: ServeHttp = Box::new(move |listener, settings, stop| {
            Box::pin(serve(listener, service, Protocol::Http, settings, stop))
        });
        self.listeners.push((listen.into(), Serve::Http(start)));
        self
    }

    /// Registers an instance once the server serves, keeps it registered, and deregisters it at the
    /// end. `registration` receives the addresses of the listeners, in the order they were added.
    pub fn register(
        mut self,
        registry: Arc<dyn Registry>,
        registration: impl FnOnce(&[SocketAddr]) -> anyhow::Result<Registration> + Send + 'static,
    ) -> Self {
        self.registrations.push(Box::new(move |bound| {
            Ok(registry.registration(registration(bound)?)?)
        }));
        self
    }

    /// Calls `action` once, when the server accepts requests. An error of it ends the server.
    pub fn on_serving(
        mut self,
        action: impl FnOnce(&Serving) -> anyhow::Result<()> + Send + 'static,
    ) -> Self {
        self.on_serving.push(Box::new(action));
        self
    }

    /// Runs `action` at SIGHUP in place of the shutdown: for a service that reads its settings again.
    /// It should be done when the new settings are in use, of which the service manager is notified.
    /// Signals that arrive meanwhile are one further call.
    pub fn on_hangup<F>(mut self, action: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.reload = Some(Reload {
            asked: Arc::new(Notify::new()),
            action: Box::new(move || Box::pin(action())),
        });
        self
    }

    /// The current stage and every later one, for readiness checks of the application's own.
    #[must_use]
    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Runs until SIGINT, SIGTERM, SIGQUIT or, without [`on_hangup`](Self::on_hangup), SIGHUP. A second
    /// signal ends the process at once.
    ///
    /// # Errors
    ///
    /// As [`run_until`](Self::run_until), and when the system refuses the signal handlers.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut shutdown = Shutdown::listen().context("cannot handle signals")?;
        if let Some(reload) = &self.reload {
            let asked = Arc::clone(&reload.asked);
            shutdown = shutdown
                .on_hangup(move || asked.notify_one())
                .context("cannot handle SIGHUP")?;
        }
        self.run_until(shutdown.requested()).await
    }

    /// Runs until `stop` is done, for tests and for programs that handle signals themselves.
    ///
    /// # Errors
    ///
    /// When an address is in use, a registration is invalid, or the descriptors or the TLS files cannot be
    /// read; when requests are unfinished at the end of the drain; outside a tokio runtime. An unreachable
    /// registry is not an error: the server serves and retries.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::runtime::Handle::try_current().context("cannot serve")?;
        let limits = self.limits;
        let max_connections = limits
            .max_connections
            .unwrap_or_else(|| default_limit(self.listeners.len()));
        // Clients that have not seen the deregistration yet are still served in this time.
        let before_stop = self.drain / 4;
        let settings = Settings {
            max_connections,
            max_connections_per_peer: limits
                .max_connections_per_peer
                .unwrap_or_else(|| default_limit_per_peer(max_connections)),
            limits,
            drain: self.drain.saturating_sub(before_stop),
            tls: None,
        };
        // Dropped at the end, which ends the tasks.
        let mut background = JoinSet::new();
        let mut tls = None;
        if let Some(files) = self.tls {
            let (acceptor, following) = files.start()?;
            background.spawn(following);
            tls = Some(acceptor);
        }

        let mut bound = Vec::new();
        let mut listeners = Vec::new();
        for (listen, service) in self.listeners {
            let plain = listen.plain;
            let listener = listen.bind().await?;
            bound.push(listener.local_addr().context("no local address")?);
            let tls = if plain { None } else { tls.clone() };
            let settings = Settings {
                tls,
                ..settings.clone()
            };
            listeners.push((listener, service, settings));
        }
        let registrations = self.registrations.into_iter();
        let registrations = registrations
            .map(|register| register(&bound))
            .collect::<anyhow::Result<Vec<_>>>()?;

        let mut running = Running {
            servers: JoinSet::new(),
            reported: Vec::new(),
            stage: self.stage,
            limiter: self.limiter,
        };
        for (listener, service, settings) in listeners {
            running.start(listener, service, settings)?;
        }
        let serving = Serving {
            addresses: bound,
            instances: registrations.iter().map(|r| r.id().to_owned()).collect(),
        };
        for action in self.on_serving {
            action(&serving)?;
        }
        let registrars = registrations.into_iter().map(Registrar::start);
        let registrars = registrars.collect::<Result<Vec<_>, _>>()?;
        let registered = serving.instances.into_iter().zip(&registrars);
        let registered = registered.map(|(id, registrar)| Registered {
            id,
            state: registrar.state(),
        });
        let mut supervision = Supervision::start(registered.collect(), self.reload);
        stop.await;
        supervision.stopping(DEREGISTER + self.drain + EXIT).await;
        let end = Instant::now() + self.drain;
        let result = running.leave(registrars, before_stop).await;
        otlp::flush(end.saturating_duration_since(Instant::now())).await;
        result
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

/// A server that accepts requests.
struct Running {
    servers: JoinSet<Served>,
    reported: Vec<Reported>,
    stage: watch::Sender<Stage>,
    limiter: Option<Arc<Limiter>>,
}

impl Running {
    fn start(
        &mut self,
        listener: TcpListener,
        service: Serve,
        settings: Settings,
    ) -> anyhow::Result<()> {
        let mut stage = self.stage.subscribe();
        let stop = Box::pin(async move {
            // The sender is dropped if the server is dropped, which is a stop too.
            let _stop = stage.wait_for(|stage| *stage == Stage::Finishing).await;
        });
        match service {
            Serve::Grpc(services) => {
                let (reported, server) =
                    services.into_server(settings.limits.receive, self.limiter.clone())?;
                self.reported.push(reported);
                self.servers.spawn(serve(
                    listener,
                    Traced::new(server),
                    Protocol::Grpc,
                    settings,
                    stop,
                ));
            }
            Serve::Http(start) => {
                self.servers.spawn(start(listener, settings, stop));
            }
        }
        Ok(())
    }

    /// Ends in order: unhealthy, deregistered, seen by the clients, drained.
    async fn leave(mut self, registrars: Vec<Registrar>, before_stop: Duration) -> Served {
        for reported in &self.reported {
            reported.health.not_serving();
        }
        self.stage.send_replace(Stage::Leaving);
        let deregistrations = registrars
            .into_iter()
            .map(|registrar| registrar.deregister(DEREGISTER));
        for result in join_all(deregistrations).await {
            if let Err(error) = result {
                // The registry's health check removes the instance later. The requests come first.
                warn!("not deregistered: {}", chain(&error));
            }
        }
        // Watchers of the registry see the change within milliseconds.
        sleep(before_stop).await;
        self.stage.send_replace(Stage::Finishing);
        drop(self.reported);
        let mut result = Ok(());
        while let Some(ended) = self.servers.join_next().await {
            let ended = ended
                .context("a server's task failed")
                .and_then(|served| served);
            result = result.and(ended);
        }
        if result.is_ok() {
            info!("all requests finished");
        }
        result
    }
}

/// Prints a line on standard output, for scripts that wait for it.
///
/// # Errors
///
/// When standard output is closed.
pub fn announce(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}
