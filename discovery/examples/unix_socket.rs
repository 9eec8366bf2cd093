//! Calls an instance over a Unix socket: a connector function gives the byte stream, HTTP/2 runs on
//! top of it.
//!
//! A transport that is not HTTP/2 over a byte stream is a `connection::Factory` of its own; the
//! in-process one, `discovery::InProcess`, is an example in the crate.
//!
//! ```console
//! $ cargo run -p discovery --example unix_socket
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod support;

use std::sync::Arc;

use discovery::{Channel, Instance, connection::Http2, registry::StaticRegistry};
use proto::{TrimRequest, trim_client::TrimClient, trim_server::TrimServer};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("trim-1.sock");
    let incoming = UnixListenerStream::new(UnixListener::bind(&socket)?);
    let server = Server::builder().add_service(TrimServer::new(support::Trimmer));
    tokio::spawn(server.serve_with_incoming(incoming));

    // The ID names the socket; the address of the instance is not used.
    let instance = Instance::new("localhost", 1)?.with_id("trim-1");
    let folder = folder.path().to_owned();
    let factory = Http2::new().with_connector(move |instance| {
        UnixStream::connect(folder.join(format!("{}.sock", instance.id)))
    });
    let registry = Arc::new(StaticRegistry::new([instance]));
    let channel = Channel::from_registry(registry, "trim_service")
        .factory(factory)
        .build()?;
    let request = TrimRequest { s: " a b ".into() };
    let answer = TrimClient::new(channel).trim_space(request).await?;
    println!("{:?} over {}", answer.into_inner().s, socket.display());
    Ok(())
}
