//! Two services in one process: one channel to each, with policies of their own.
//!
//! ```console
//! $ cargo run -p discovery --example two_services
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod support;

use std::{sync::Arc, time::Duration};

use discovery::{Channel, Instance, RetryPolicy, balance::Policy, registry::StaticRegistry};
use proto::{TrimRequest, trim_client::TrimClient};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instances = [
        Instance::parse(&support::start().await?.to_string())?,
        Instance::parse(&support::start().await?.to_string())?,
    ];
    // One registry serves any number of channels; registry::connect(url) makes others.
    let registry = Arc::new(StaticRegistry::new(instances));

    let trim = Channel::from_registry(registry.clone(), "trim_service")
        .balancer(Policy::LeastRequest)
        .idempotent(["/pb.Trim/TrimSpace"])
        .build()?;
    let quick = RetryPolicy::default()
        .with_max_attempts(2)
        .with_timeout(Duration::from_millis(100));
    let health = Channel::from_registry(registry, "health")
        .retry(quick)
        .build()?;

    let mut trim = TrimClient::new(trim);
    let mut health = HealthClient::new(health);
    let (trimmed, checked) = tokio::try_join!(
        trim.trim_space(TrimRequest { s: " a b ".into() }),
        health.check(HealthCheckRequest::default()),
    )?;
    println!("trimmed: {:?}", trimmed.into_inner().s);
    println!("health: {:?}", checked.into_inner().status());
    Ok(())
}
