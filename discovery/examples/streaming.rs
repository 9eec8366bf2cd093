//! Reads a server's stream through a channel: the health of each instance, as it changes.
//!
//! A stream stays on the instance that began it. The channel's own time limit does not apply to it:
//! it lives as long as the caller's deadline, or without one.
//!
//! ```console
//! $ cargo run -p discovery --example streaming
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

use discovery::Channel;
use tokio::net::TcpListener;
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::transport::Server;
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("static://{}", listener.local_addr()?);
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(
        Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );

    let channel = Channel::builder(url, "health").build()?;
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest::default();
    let mut updates = client.watch(request).await?.into_inner();
    let mut changes = [ServingStatus::NotServing, ServingStatus::Serving].into_iter();
    while let Some(update) = updates.next().await {
        println!("{:?}", update?.status());
        let Some(status) = changes.next() else {
            break;
        };
        reporter.set_service_status("", status).await;
    }
    Ok(())
}
