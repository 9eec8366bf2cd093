//! Registers two instances in Consul, finds them through a channel, and takes them out again.
//!
//! ```console
//! $ consul agent -dev &
//! $ cargo run -p discovery --example consul -- consul://localhost:8500
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod support;

use std::{env, process, time::Duration};

use discovery::{
    Channel, Instance, Registrar,
    registry::{self, Check, Registration},
};
use proto::{TrimRequest, trim_client::TrimClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Consul's own variables, such as CONSUL_HTTP_TOKEN, have the meaning that they have there.
    let url = env::args().nth(1);
    let registry = registry::connect(url.as_deref().unwrap_or("consul://localhost:8500"))?;
    let service = format!("trim-example-{}", process::id());

    let mut registrars = Vec::new();
    for _ in 0..2 {
        let address = support::start().await?;
        let instance = Instance::named(&service, address.ip(), address.port())?;
        let registration = Registration::new(instance, Check::grpc());
        // It registers in the background and keeps the instance registered.
        registrars.push(Registrar::start(registry.registration(registration)?)?);
    }

    // Consul lists an instance once its first health check has passed.
    let channel = Channel::from_registry(registry, &service).build()?;
    channel.wait_for(|status| status.ready == 2).await?;
    let mut client = TrimClient::new(channel.clone());
    let request = TrimRequest { s: " a b ".into() };
    println!("{:?}", client.trim_space(request).await?.into_inner().s);

    for registrar in registrars {
        registrar.deregister(Duration::from_secs(2)).await?;
    }
    channel.wait_for(|status| status.listed == 0).await?;
    println!("no instance is registered any more");
    Ok(())
}
