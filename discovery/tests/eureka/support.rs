//! Watches and registrations in a Eureka that a URL names.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{sync::Arc, time::Duration};

use discovery::watch::Receiver;
use discovery::{
    Registrar, RegistrationState,
    registry::{self, InstanceSet, Query, Registration, RegistrationClient},
};

use crate::sets::within;

/// The ID of the registration at port 8975.
pub(crate) const ID: &str = "trim_service-127.0.0.1-8975";

/// Limit for conditions that need a Java program to answer on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A watch of `trim_service`. It ends with the first of the two.
pub(crate) fn watch(url: &str) -> (Arc<dyn registry::Instancer>, Receiver<InstanceSet>) {
    let registry = registry::connect(url).unwrap();
    let instancer = registry.instancer(&Query::new("trim_service")).unwrap();
    let sets = instancer.watch();
    (instancer, sets)
}

pub(crate) fn client(url: &str, registration: Registration) -> Arc<dyn RegistrationClient> {
    let registry = registry::connect(url).unwrap();
    registry.registration(registration).unwrap()
}

/// Starts a registrar and waits until it has registered.
pub(crate) async fn registered(client: Arc<dyn RegistrationClient>) -> Registrar {
    let registrar = Registrar::start(client).unwrap();
    until_state(&registrar, RegistrationState::is_registered).await;
    registrar
}

pub(crate) async fn until_state(
    registrar: &Registrar,
    wanted: impl FnMut(&RegistrationState) -> bool,
) {
    let mut state = registrar.state();
    within(LIMIT, state.wait_for(wanted)).await.unwrap();
}
