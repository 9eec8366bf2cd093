//! The trim service: a gRPC service that removes spaces from text and registers itself in Consul.
//!
//! It binds, serves and registers. On SIGINT or SIGTERM it reports itself as unhealthy,
//! deregisters, waits for the watchers, finishes the accepted requests and exits with 0.

mod args;
mod fault;
mod service;

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Context as _;
use bootstrap::{
    args::parse,
    grpc::{self, Health},
    logging,
    serve::{Protocol, bind, drain_parts, serve},
    signals::Shutdown,
    values::outbound_ip,
};
use discovery::{Instance, Registrar, chain, registry};
use proto::trim_server::TrimServer;
use tokio::{sync::oneshot, task::JoinHandle};
use tracing::{info, warn};

use crate::{args::Args, service::TrimService};

/// Time limit of the deregistration.
const DEREGISTER: Duration = Duration::from_secs(2);

/// Faster than the system allocator for many small allocations per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Args = parse();
    logging::init(&args.log);
    let shutdown = Shutdown::listen().context("cannot listen for signals")?;

    let ip = advertised(&args)?;
    let listener = bind(SocketAddr::new(args.listen, args.port), "--port").await?;
    let port = listener.local_addr().context("no local address")?.port();
    let instance = instance(&args, ip, port)?;
    let id = instance.id.clone();
    let registry = registry::connect(&args.registry.url())?;
    let registration = registry.registration(args.registration(instance))?;

    let trim = TrimServer::new(TrimService::new(args.fault.clone()));
    let (health, routes) = grpc::routes(trim, proto::FILE_DESCRIPTOR_SET).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // A dropped sender means that `main` has ended, which is a stop too.
        let _stop = stopped.await;
    };
    let (learning, finishing) = drain_parts(args.drain);
    let server = tokio::spawn(serve(listener, routes, Protocol::Grpc, stopped, finishing));
    announce(&id, SocketAddr::new(ip, port))?;

    let registrar = Registrar::start(registration)?;
    shutdown.requested().await;
    leave(learning, health, registrar, stop, server).await
}

/// Ends in order after a signal.
async fn leave(
    learning: Duration,
    health: Health,
    registrar: Registrar,
    stop: oneshot::Sender<()>,
    server: JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    health.not_serving().await;
    if let Err(error) = registrar.deregister(DEREGISTER).await {
        // The registry's health check removes the instance later. The requests come first.
        warn!("not deregistered: {}", chain(&error));
    }
    // Consul's watchers see the change within milliseconds.
    tokio::time::sleep(learning).await;
    // If the server has already ended, the join below returns the reason.
    let _ended = stop.send(());
    health.end_streams().await;
    server.await.context("the server's task failed")??;
    info!("all requests finished");
    Ok(())
}

/// The address to advertise: the one given, the one listened on if it is a single address, or the
/// machine's outbound address.
fn advertised(args: &Args) -> anyhow::Result<IpAddr> {
    match args.ip {
        Some(ip) => Ok(ip),
        None if !args.listen.is_unspecified() => Ok(args.listen),
        None => outbound_ip(),
    }
}

fn instance(args: &Args, ip: IpAddr, port: u16) -> anyhow::Result<Instance> {
    Ok(Instance::named(&args.name, ip, port)?
        .with_tags(&args.tag)
        .with_meta(args.meta.iter().cloned())
        .with_weight(args.weight.into()))
}

/// Prints the line that scripts wait for.
fn announce(id: &str, address: SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "trim-service listening grpc={address} id={id}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}
