//! The add service: adds numbers and joins texts, over gRPC and over HTTP with JSON, and finds the
//! trim instances that it needs through the `discovery` crate.
//!
//! A request comes in through `grpc.rs` or `http.rs`, both of which call `service.rs`; that asks the
//! trim service through `trim.rs`.

mod args;
mod caller;
mod grpc;
mod http;
mod metrics;
mod service;
mod trim;

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use bootstrap::{
    args::parse,
    logging,
    serve::{Protocol, bind, drain_parts, serve},
    signals::Shutdown,
};
use tokio::sync::watch;
use tracing::info;

use crate::{args::Args, http::Stage, service::AddService, trim::RemoteTrim};

/// How often the metrics recorder tidies up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Faster than the system allocator for many small allocations per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Args = parse();
    logging::init(&args.log);
    let shutdown = Shutdown::listen().context("cannot listen for signals")?;
    // Before the channel, which looks up its counters when it is built.
    let recorder = metrics::install()?;

    let grpc = bind(SocketAddr::new(args.listen, args.grpc_port), "--grpc-port").await?;
    let http = bind(SocketAddr::new(args.listen, args.http_port), "--http-port").await?;
    let addresses = (http.local_addr()?, grpc.local_addr()?);

    let channel = args.channel()?;
    let service = Arc::new(AddService::new(
        RemoteTrim::new(channel.clone(), args.max_body),
        args.rate_limit,
        args.key_header(),
    ));
    let (stop, stopping) = watch::channel(Stage::Serving);
    let stopped = |mut stopping: watch::Receiver<Stage>| async move {
        // A dropped sender means that `main` is over, which is a stop as well.
        let _told = stopping.wait_for(|stage| *stage == Stage::Finishing).await;
    };
    let (learning, finishing) = drain_parts(args.drain);
    let (health, routes) = grpc::routes(Arc::clone(&service), args.max_body).await?;
    let http_routes = http::routes(
        service,
        http::Readiness {
            channel,
            stage: stopping.clone(),
            recorder: recorder.clone(),
        },
        args.max_body,
    );
    let grpc_server = tokio::spawn(serve(
        grpc,
        routes,
        Protocol::Grpc,
        stopped(stopping.clone()),
        finishing,
    ));
    let http_server = tokio::spawn(serve(
        http,
        http_routes,
        Protocol::Http,
        stopped(stopping),
        finishing,
    ));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            recorder.run_upkeep();
        }
    });
    announce(addresses)?;

    shutdown.requested().await;
    health.not_serving().await;
    stop.send_replace(Stage::Leaving);
    tokio::time::sleep(learning).await;
    stop.send_replace(Stage::Finishing);
    health.end_streams().await;
    let (grpc_ended, http_ended) = tokio::join!(grpc_server, http_server);
    grpc_ended.context("the gRPC server's task failed")??;
    http_ended.context("the HTTP server's task failed")??;
    info!("all requests finished");
    Ok(())
}

/// The line that scripts wait for.
fn announce((http, grpc): (SocketAddr, SocketAddr)) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "add-service listening http={http} grpc={grpc}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}
