//! Eureka as a registry: with a real Eureka and other clients of it, and with fakes for the answers that a
//! real one does not give on demand.

#![cfg(feature = "eureka")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod clients;
mod fake;
mod faults;
mod operator;
mod peers;
mod register;
mod security;
#[path = "../sets/mod.rs"]
mod sets;

use std::{sync::Arc, time::Duration};

use discovery::{
    Registrar, RegistrationState,
    registry::{self, InstanceSet, Query, Registration, RegistrationClient},
};
use testkit::registries::{Eureka, Server};
use tokio::sync::watch::Receiver;

use crate::sets::within;

const ID: &str = "trim_service-127.0.0.1-8975";

/// Limit for conditions that need a Java program to answer on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A Eureka of the test's own, or `None` if there is none on this machine.
async fn start() -> Option<Server<Eureka>> {
    Server::start(Eureka::default()).await.unwrap()
}

/// A watch of `trim_service`. It ends with the first of the two.
fn watch(url: &str) -> (Arc<dyn registry::Instancer>, Receiver<InstanceSet>) {
    let registry = registry::connect(url).unwrap();
    let instancer = registry.instancer(&Query::new("trim_service")).unwrap();
    let sets = instancer.watch();
    (instancer, sets)
}

fn client(url: &str, registration: Registration) -> Arc<dyn RegistrationClient> {
    let registry = registry::connect(url).unwrap();
    registry.registration(registration).unwrap()
}

/// Starts a registrar and waits until it has registered.
async fn registered(client: Arc<dyn RegistrationClient>) -> Registrar {
    let registrar = Registrar::start(client).unwrap();
    until_state(&registrar, RegistrationState::is_registered).await;
    registrar
}

async fn until_state(registrar: &Registrar, wanted: impl FnMut(&RegistrationState) -> bool) {
    let mut state = registrar.state();
    within(LIMIT, state.wait_for(wanted)).await.unwrap();
}
