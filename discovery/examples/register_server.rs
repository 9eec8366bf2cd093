//! Registers a tonic server of your own and ends it in order: it deregisters first, so that clients
//! stop sending, and then finishes the calls that it has accepted.
//!
//! ```console
//! $ consul agent -dev &
//! $ cargo run -p discovery --example register_server -- consul://localhost:8500
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod support;

use std::{env, time::Duration};

use discovery::{
    Instance, Registrar,
    registry::{self, Check, Registration},
};
use proto::trim_server::TrimServer;
use tokio::{net::TcpListener, signal, sync::oneshot, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// Clients need this long to learn of a deregistration.
const LEARN: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::args().nth(1);
    let registry = registry::connect(url.as_deref().unwrap_or("consul://localhost:8500"))?;

    // Listen first: Consul checks an instance as soon as it is registered.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let trim = TrimServer::new(support::Trimmer);
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(
        Server::builder()
            .add_service(trim)
            .add_service(health)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _stop_or_end = stopped.await;
            }),
    );

    let instance = Instance::named("trim-example-server", address.ip(), address.port())?;
    println!("serving {}", instance.id);
    let registration = Registration::new(instance, Check::grpc());
    let registrar = Registrar::start(registry.registration(registration)?)?;

    signal::ctrl_c().await?;
    let not_serving = tonic_health::ServingStatus::NotServing;
    reporter.set_service_status("", not_serving).await;
    registrar.deregister(Duration::from_secs(2)).await?;
    sleep(LEARN).await;
    // Ignored if the server has ended already.
    let _sent = stop.send(());
    server.await??;
    println!("ended in order");
    Ok(())
}
