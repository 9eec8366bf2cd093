//! The trim service: a gRPC service that removes spaces from text and registers itself in its
//! registries, by default Consul.

mod args;
mod fault;
mod service;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bootstrap::{
    Listen, Server, Services, announce,
    args::{Moved, parse},
    block_on, compressed, logging, raise_open_files,
    values::advertised,
};
use discovery::{Instance, limit::Limiter, orca::ServerLoad, registry::RegistryError};
use proto::trim_server::TrimServer;

use crate::{args::Args, service::TrimService};

/// Faster than the system allocator for many small allocations per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let args: Args = parse(&Moved::NONE);
    block_on(async {
        logging::init(&args.log)?;
        raise_open_files();
        serve(args).await
    })
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let ip = advertised(args.ip, args.listen)?;
    let args = Arc::new(args);
    let trim = compressed!(TrimServer::new(TrimService::new(args.fault.clone())));
    // Its CPU share and rate, for clients that weigh instances by their load.
    let load = ServerLoad::of_process();
    let mut server = Server::new()
        .drain(args.drain)
        .limits(args.limits())
        .limiter(Limiter::new(&args.concurrency_limit))
        .grpc(
            Listen::on(args.listen, args.port).flag("--port"),
            Services::new(proto::FILE_DESCRIPTOR_SET)
                .add(load.around(trim))
                .load_reports(load),
        );
    if let Some(tls) = args.tls.server() {
        server = server.tls(tls);
    }
    let registries = if args.register {
        args.registry.open_each()?
    } else {
        Vec::new()
    };
    for registry in registries {
        let args = Arc::clone(&args);
        server = server.register(registry, move |bound| {
            let instance = instance(&args, ip, bound[0].port())?;
            Ok(args.registration(instance))
        });
    }
    server
        .on_serving(move |serving| {
            let address = SocketAddr::new(ip, serving.addresses[0].port());
            let id = instance(&args, ip, address.port())?.id;
            announce(&format!("trim-service listening grpc={address} id={id}"))
        })
        .run()
        .await
        .map_err(name_flags)
}

/// Names the flags to change if a registry cannot hold the registration.
fn name_flags(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(RegistryError::Unsupported { .. }) => error.context(
            "cannot register: name another registry with --registry, for example consul://HOST:PORT, or \
             start with --register false",
        ),
        _ => error,
    }
}

fn instance(args: &Args, ip: IpAddr, port: u16) -> anyhow::Result<Instance> {
    Ok(Instance::named(&args.name, ip, port)?
        .with_tags(&args.tag)
        .with_meta(args.meta.iter().cloned())
        .with_weight(args.weight.into()))
}
