//! The add service: adds numbers and joins texts, over gRPC and HTTP/JSON. It finds the trim
//! instances that it calls through the `discovery` crate.
//!
//! `grpc.rs` and `http.rs` receive requests and call `service.rs`, which calls the trim service
//! through `trim.rs`. `operator.rs` and `page.rs` show its state.

mod args;
mod caller;
mod error_detail;
mod failure;
mod grpc;
mod http;
mod json;
mod metrics;
mod operator;
mod page;
mod request;
mod service;
mod trim;
mod trim_config;

use std::{net::SocketAddr, sync::Arc};

use bootstrap::{Listen, Server, announce, args::parse, block_on, logging, raise_open_files};
use discovery::limit::Limiter;
use tokio::sync::Notify;

use crate::{args::Args, operator::Readiness, service::AddService, trim::RemoteTrim};

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
    let limiter = Limiter::new(&args.concurrency_limit);
    let mut server = Server::new()
        .drain(args.drain)
        .limits(args.limits())
        .limiter(limiter.clone());
    if let Some(file) = trim_config {
        let hangup = Arc::new(Notify::new());
        tokio::spawn(file.follow(channel.clone(), Arc::clone(&hangup)));
        server = server.on_hangup(move || hangup.notify_one());
    }
    let mut operator = operator::routes(Readiness {
        channel: channel.clone(),
        stage: server.stage(),
        recorder,
        detail: args.error_detail,
    });
    let access = args.page_access();
    if let Some(access) = access {
        let (service, stage) = (Arc::clone(&service), server.stage());
        operator = operator.merge(page::routes(service, channel, stage, args.max_body, access));
    }
    let mut methods = http::methods(Arc::clone(&service), args.max_body, limiter);
    let mut own_port = None;
    match args.admin_listen {
        Some(address) => own_port = Some((address, operator)),
        None => methods = methods.merge(operator),
    }
    let mut server = server
        .http(
            Listen::on(args.listen, args.http_port).flag("--http-port"),
            http::port(methods),
        )
        .grpc(
            Listen::on(args.listen, args.grpc_port).flag("--grpc-port"),
            grpc::services(service, args.max_body),
        );
    if let Some((address, operator)) = own_port {
        let listen = Listen::from(address).flag("--admin-listen");
        server = server.http(listen, http::port(operator));
    }
    server
        .on_serving(move |serving| announce(&listening(&serving.addresses, access.is_some())))
        .run()
        .await
}

/// The line that says where the service listens: on HTTP, on gRPC, and on a port for operators if it has
/// one.
fn listening(addresses: &[SocketAddr], has_page: bool) -> String {
    let (http, grpc) = (addresses[0], addresses[1]);
    let own = addresses.get(2);
    let admin = own.map_or_else(String::new, |own| format!(" admin={own}"));
    let page = if has_page {
        format!(" page=http://{}/", own.unwrap_or(&http))
    } else {
        String::new()
    };
    format!("add-service listening http={http} grpc={grpc}{admin}{page}")
}
