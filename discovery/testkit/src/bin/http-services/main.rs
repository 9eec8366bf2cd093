//! The drill's pair for plain HTTP: a trim server on axum that registers itself in Consul, and an add server
//! that calls it through `discovery::http::Channel`. They do what the project's services do for gRPC, as far
//! as the drill needs it.

#![allow(
    clippy::print_stdout,
    reason = "the drill reads where a server listens"
)]

mod add;
mod fault;
mod trim;

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// The servers of the drill for plain HTTP.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    server: Server,
}

#[derive(Debug, Subcommand)]
enum Server {
    /// Removes spaces
    Trim(trim::Args),
    /// Joins two texts that the trim servers have trimmed
    Add(add::Args),
}

/// The flags of both.
#[derive(Debug, clap::Args)]
struct Common {
    /// Consul's address
    #[arg(long, value_name = "HOST:PORT")]
    consul: String,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
}

impl Common {
    fn registry(&self) -> String {
        format!("consul://{}", self.consul)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // The client of Consul has none of its own in this package, see `testkit::http_client`. This is the
    // first one, so it cannot fail.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    match Args::parse().server {
        Server::Trim(args) => trim::serve(args).await,
        Server::Add(args) => add::serve(args).await,
    }
}

/// Completes with the first SIGTERM or SIGINT.
async fn stop() -> Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
