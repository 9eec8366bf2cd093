//! The add service: adds numbers and joins texts, over gRPC and HTTP/JSON. It finds the trim
//! instances that it calls through the `discovery` crate.
//!
//! `grpc.rs` and `http.rs` receive requests and call `service.rs`, which calls the trim service
//! through `trim.rs`.

mod args;
mod caller;
mod error_detail;
mod grpc;
mod http;
mod json;
mod metrics;
mod service;
mod trim;
mod trim_config;

use std::sync::Arc;

use bootstrap::{Listen, Server, announce, args::parse, block_on, logging, raise_open_files};
use tokio::sync::Notify;

use crate::{args::Args, http::Readiness, service::AddService, trim::RemoteTrim};

/// Faster than the system allocator for many small allocations per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let args: Args = parse();
    logging::init(&args.log);
    raise_open_files();
    block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    if args.print_config {
        return announce(&args.effective_config()?);
    }
    // Before the channel, which registers its counters when it is built.
    let recorder = metrics::install()?;
    // Before the file is read, so that a later change is seen.
    let trim_config = args.trim_config();
    let channel = args.channel()?;
    let trim = RemoteTrim::new(
        channel.clone(),
        args.max_body,
        args.trim_compression(),
        args.error_detail,
    );
    let service = Arc::new(AddService::new(trim, args.rate_limit, args.key_header()));
    let mut server = Server::new().drain(args.drain).limits(args.limits());
    if let Some(file) = trim_config {
        let hangup = Arc::new(Notify::new());
        tokio::spawn(file.follow(channel.clone(), Arc::clone(&hangup)));
        server = server.on_hangup(move || hangup.notify_one());
    }
    let readiness = Readiness {
        channel,
        stage: server.stage(),
        recorder,
        detail: args.error_detail,
    };
    server
        .http(
            Listen::on(args.listen, args.http_port).flag("--http-port"),
            http::routes(Arc::clone(&service), readiness, args.max_body),
        )
        .grpc(
            Listen::on(args.listen, args.grpc_port).flag("--grpc-port"),
            grpc::services(service, args.max_body),
        )
        .on_serving(|serving| {
            let (http, grpc) = (serving.addresses[0], serving.addresses[1]);
            announce(&format!("add-service listening http={http} grpc={grpc}"))
        })
        .run()
        .await
}
