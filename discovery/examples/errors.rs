//! Reads why a call failed, and what the channel knows of its instances.
//!
//! ```console
//! $ cargo run -p discovery --example errors
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod support;

use discovery::{CallError, CallErrorKind, Channel};
use proto::{TrimRequest, trim_client::TrimClient};
use tonic::Status;

/// Prints the kind of the error, by which a caller decides, and the code of each attempt.
fn explain(status: &Status) {
    let Some(error) = CallError::of(status) else {
        println!(
            "a server answered: {:?}: {}",
            status.code(),
            status.message()
        );
        return;
    };
    match error.kind {
        CallErrorKind::NoInstances | CallErrorKind::RegistrySilent => {
            println!("look at the registry: {error}");
        }
        CallErrorKind::AllUnreachable => println!("look at the instances: {error}"),
        CallErrorKind::Deadline => println!("too slow: {error}"),
        kind => {
            println!("{kind:?}: {}", error.reason);
            for attempt in &error.attempts {
                println!(
                    "  {}: {} ({})",
                    attempt.instance, attempt.code, attempt.reason
                );
            }
        }
    }
}

async fn call(url: &str, text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let channel = Channel::builder(url, "trim_service").build()?;
    let mut client = TrimClient::new(channel.clone());
    if let Err(status) = client.trim_space(TrimRequest { s: text.into() }).await {
        explain(&status);
    }
    for endpoint in channel.endpoints() {
        println!("  now: {} {:?}", endpoint.instance, endpoint.connectivity);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (one, two) = (support::start().await?, support::start().await?);
    // The server refuses a text of spaces, at every attempt.
    call(&format!("static://{one},{two}"), "   ").await?;
    // Nothing listens on port 1.
    call("static://127.0.0.1:1", "a b").await
}
