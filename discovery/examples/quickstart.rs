//! Calls a service through a static list of instances.
//!
//! ```console
//! $ cargo run -p discovery --example quickstart
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod support;

use discovery::{Channel, ServedBy};
use proto::{TrimRequest, trim_client::TrimClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (one, two) = (support::start().await?, support::start().await?);

    // In production the URL names a registry, such as consul://localhost:8500.
    let channel = Channel::builder(format!("static://{one},{two}"), "trim_service")
        .idempotent(["/pb.Trim/TrimSpace"]) // may be repeated after a timeout
        .build()?;

    // Clones of the client share the connections, and what was learnt of each instance.
    let mut client = TrimClient::new(channel);
    for text in [" a b ", "c d", " e", "f "] {
        let response = client.trim_space(TrimRequest { s: text.into() }).await?;
        let ServedBy(instance) = response
            .extensions()
            .get()
            .cloned()
            .ok_or("every response names its instance")?;
        println!("{text:?} -> {:?} by {instance}", response.into_inner().s);
    }
    Ok(())
}
