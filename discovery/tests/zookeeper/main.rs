//! ZooKeeper as a registry, with a real ZooKeeper and with Curator and Go kit as other clients of it.

#![cfg(feature = "zookeeper")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed; bounds that were measured are printed"
)]

mod curator;
mod gokit;
mod proxy;
mod register;
mod security;
#[path = "../sets/mod.rs"]
mod sets;
mod watch;

use std::{sync::Arc, time::Duration};

use discovery::watch::Receiver;
use discovery::{
    Registrar, RegistrationState,
    registry::{self, InstanceSet, Query, Registration, RegistrationClient},
};
use testkit::registries::{Server, ZooKeeper, ZooKeeperClient};

use crate::sets::within;

/// The node of the service in the default base path.
const SERVICE: &str = "/services/trim_service";

/// Limit for conditions that need a Java program to answer on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A ZooKeeper of the test's own, or `None` if there is none on this machine.
async fn start() -> Option<Server<ZooKeeper>> {
    Server::start(ZooKeeper).await.unwrap()
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

/// Registers. A busy machine's server may not answer in time.
async fn register(client: &dyn RegistrationClient) {
    let mut last = None;
    for _ in 0..20 {
        match client.register().await {
            Ok(()) => return,
            Err(error) if error.is_transient() => last = Some(error),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{last:?}");
}

/// Starts a registrar and waits until it has registered.
async fn registered(client: Arc<dyn RegistrationClient>) -> Registrar {
    let registrar = Registrar::start(client).unwrap();
    until_registered(&registrar).await;
    registrar
}

async fn until_registered(registrar: &Registrar) {
    let mut state = registrar.state();
    let registered = state.wait_for(RegistrationState::is_registered);
    within(LIMIT, registered).await.unwrap();
}

/// The names of the service's nodes.
async fn nodes(server: &Server<ZooKeeper>) -> Vec<String> {
    let mut client = server.client().await.unwrap();
    children(&mut client).await
}

async fn children(client: &mut ZooKeeperClient) -> Vec<String> {
    let mut names = client.children(SERVICE).await.unwrap();
    names.sort();
    names
}
