//! Options of one call: its time, and the instance that it goes to.
//!
//! ```console
//! $ cargo run -p discovery --example call_options
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod support;

use std::{sync::Arc, time::Duration};

use discovery::{
    CallError, CallOptions, Channel, Instance, InstanceFilter, ServedBy, registry::StaticRegistry,
};
use proto::{TrimRequest, trim_client::TrimClient};
use tonic::{Request, Status};

/// Calls with these options, and returns the instance that answered.
async fn call(client: &TrimClient<Channel>, options: CallOptions) -> Result<String, Status> {
    let mut request = Request::new(TrimRequest { s: " a b ".into() });
    request.extensions_mut().insert(options);
    let response = client.clone().trim_space(request).await?;
    let served = response.extensions().get::<ServedBy>();
    Ok(served.map_or_else(String::new, |served| served.0.id.clone()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (one, two) = (support::start().await?, support::start().await?);
    let instances = [
        Instance::parse(&one.to_string())?.with_id("stable"),
        Instance::parse(&two.to_string())?
            .with_id("canary")
            .with_tags(["canary"])
            .with_meta([("version", "2")]),
    ];
    let registry = StaticRegistry::new(instances);
    let channel = Channel::from_registry(Arc::new(registry), "trim_service").build()?;
    channel.wait_for(|status| status.ready == 2).await?;
    let client = TrimClient::new(channel);

    // Pinned to one instance, by its ID.
    let pinned = CallOptions::new().require(InstanceFilter::id("stable"));
    println!("pinned: {}", call(&client, pinned).await?);

    // To the canary, and elsewhere while there is none.
    let canary = InstanceFilter::tag("canary").and(InstanceFilter::meta("version", "2"));
    println!(
        "canary: {}",
        call(&client, CallOptions::new().prefer(canary)).await?
    );
    let newer = InstanceFilter::meta("version", "3");
    let answered = !call(&client, CallOptions::new().prefer(newer.clone()))
        .await?
        .is_empty();
    println!("without a canary: answered: {answered}");

    // Waits for an instance of that version, but not longer than this.
    let patient = CallOptions::new()
        .require(newer)
        .with_wait_for_ready(true)
        .with_timeout(Duration::from_millis(50));
    if let Err(status) = call(&client, patient).await {
        println!("{:?}", CallError::of(&status).map(|error| error.kind));
    }
    Ok(())
}
