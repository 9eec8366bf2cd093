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
use tokio::sync::{mpsc, oneshot};

use crate::{
    args::{Args, MOVED},
    operator::Readiness,
    service::AddService,
    trim::RemoteTrim,
};

/// Faster than the system allocator for many small allocations per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let args: Args = parse(&MOVED);
    block_on(async {
        logging::init(&args.log)?;
        MOVED.warn();
        raise_open_files();
        serve(args).await
    })
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
    let service = Arc::new(AddService::new(trim, args.rate_limit));
    let limiter = Limiter::new(&args.concurrency_limit);
    let mut server = Server::new()
        .drain(args.drain)
        .limits(args.limits())
        .limiter(limiter.clone());
    let tls = args.tls.server();
    let has_tls = tls.is_some();
    if let Some(tls) = tls {
        server = server.tls(tls);
    }
    if let Some(file) = trim_config {
        let (hangups, asked) = mpsc::channel(1);
        tokio::spawn(file.follow(channel.clone(), asked));
        server = server.on_hangup(move || read_again(hangups.clone()));
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
        // Monitoring and probes rarely have certificates.
        let listen = Listen::from(address).flag("--admin-listen").without_tls();
        server = server.http(listen, http::port(operator));
    }
    server
        .on_serving(move |serving| {
            let page = access.is_some().then_some(has_tls);
            announce(&listening(&serving.addresses, page))
        })
        .run()
        .await
}

/// Has the policy's file read again, and waits until its contents are in use or refused.
async fn read_again(hangups: mpsc::Sender<oneshot::Sender<()>>) {
    let (done, finished) = oneshot::channel();
    if hangups.send(done).await.is_ok() {
        // An error means that the service ends.
        let _ended = finished.await;
    }
}

/// The line that says where the service listens: on HTTP, on gRPC, and on a port for operators if it has
/// one. `page` is `None` without the page, or true if the HTTP port has TLS.
fn listening(addresses: &[SocketAddr], page: Option<bool>) -> String {
    let (http, grpc) = (addresses[0], addresses[1]);
    let own = addresses.get(2);
    let admin = own.map_or_else(String::new, |own| format!(" admin={own}"));
    let page = page.map_or_else(String::new, |tls| match own {
        Some(own) => format!(" page=http://{own}/"),
        None if tls => format!(" page=https://{http}/"),
        None => format!(" page=http://{http}/"),
    });
    format!("add-service listening http={http} grpc={grpc}{admin}{page}")
}
