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

use std::sync::Arc;

use bootstrap::{Listen, Server, announce, args::parse, block_on, logging, raise_open_files};

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
    // Before the channel, which registers its counters when it is built.
    let recorder = metrics::install()?;
    let channel = args.channel()?;
    let trim = RemoteTrim::new(
        channel.clone(),
        args.max_body,
        args.trim_compression(),
        args.error_detail,
    );
    let service = Arc::new(AddService::new(trim, args.rate_limit, args.key_header()));
    let server = Server::new().drain(args.drain).limits(args.limits());
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
