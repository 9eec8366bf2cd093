//! Our servers of the test service: one on tonic's own server, one on the server of both service
//! binaries. Both print what `peer` reads.

mod echo;
mod flags;
mod report;
mod service;

use std::net::SocketAddr;

use anyhow::Result;
use bootstrap::{Server, Services};
use futures_util::future::try_join_all;
use tokio::net::TcpListener;
use tonic::{codec::CompressionEncoding, transport::server::TcpIncoming};

use self::{echo::Echo, flags::Flags, report::Report, service::TestService};
use crate::messages::{DESCRIPTORS, test_service_server::TestServiceServer};

/// The server below the test service.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Stack {
    Tonic,
    Bootstrap,
}

type Layered = Report<Echo<Flags<TestServiceServer<TestService>>>>;

fn layered() -> Layered {
    let server = TestServiceServer::new(TestService)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    Report(Echo(Flags(server)))
}

/// Serves on so many free ports until the process is killed.
pub(crate) async fn serve(stack: Stack, servers: usize) -> Result<()> {
    match stack {
        Stack::Tonic => on_tonic(servers).await,
        Stack::Bootstrap => on_bootstrap(servers).await,
    }
}

async fn on_tonic(servers: usize) -> Result<()> {
    let (mut addresses, mut running) = (Vec::new(), Vec::new());
    for _ in 0..servers {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?);
        let server = tonic::transport::Server::builder().add_service(layered());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        running.push(server.serve_with_incoming(incoming));
    }
    announce(&addresses);
    try_join_all(running).await?;
    Ok(())
}

async fn on_bootstrap(servers: usize) -> Result<()> {
    let mut server = Server::new();
    for _ in 0..servers {
        let services = Services::new(DESCRIPTORS).add(layered());
        server = server.grpc(([127, 0, 0, 1], 0), services);
    }
    server
        .on_serving(|serving| {
            announce(&serving.addresses);
            Ok(())
        })
        .run()
        .await
}

fn announce(addresses: &[SocketAddr]) {
    let addresses = addresses.iter().map(ToString::to_string);
    println!("listening {}", addresses.collect::<Vec<_>>().join(" "));
}
