//! Waiting for the instance sets of a registry, for the tests of registries.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::{future::Future, time::Duration};

use discovery::watch;
use discovery::{
    Instance, Registrar,
    registry::{Check, InstanceSet, Query, Registration, Registry, RegistryError},
};
use futures_util::FutureExt as _;

/// Long enough for a busy machine. Tests with a shorter limit state their own.
const LIMIT: Duration = Duration::from_secs(15);

/// Fails the test if `work` does not complete within `limit`.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| panic!("did not complete within {limit:?}"))
}

/// The first set that satisfies `wanted`.
pub(crate) async fn until(
    sets: &mut watch::Receiver<InstanceSet>,
    mut wanted: impl FnMut(&InstanceSet) -> bool,
) -> InstanceSet {
    let found = async { sets.wait_for(|set| wanted(set)).await.unwrap().clone() };
    if let Ok(set) = tokio::time::timeout(LIMIT, found).await {
        return set;
    }
    panic!(
        "no such set within {LIMIT:?}; last set: {:?}",
        *sets.borrow()
    );
}

/// The value that `look` returns in the end. For conditions without a notification.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    testkit::eventually(what, LIMIT, look).await.unwrap().0
}

/// The IDs of the instances of a set.
pub(crate) fn ids(set: &InstanceSet) -> Vec<&str> {
    set.instances.iter().map(|i| &*i.id).collect()
}

/// Asserts that outside a runtime each call to a registry is an error that names the call.
pub(crate) fn needs_a_runtime(registry: &dyn Registry, check: impl Into<Check>) {
    let watched = registry.instancer(&Query::new("trim_service")).map(drop);
    let client = registry.registration(registration(8975, check)).unwrap();
    let registered = client.register().now_or_never().unwrap();
    let maintained = client.maintain().now_or_never().map(Err).unwrap();
    let deregistered = client.deregister().now_or_never().unwrap();
    let started = Registrar::start(client.clone()).map(drop);
    for (call, result) in [
        ("watch", watched),
        ("register", registered),
        ("keep", maintained),
        ("deregister", deregistered),
        ("register", started),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, RegistryError::NoRuntime { action } if action.starts_with(call)),
            "{call}: {error}"
        );
    }
}

/// `trim_service` on this machine, with this check.
pub(crate) fn registration(port: u16, check: impl Into<Check>) -> Registration {
    let instance = Instance::named("trim_service", [127, 0, 0, 1].into(), port).unwrap();
    Registration::new(instance, check)
}
