//! Waits for sets and conditions, for the tests of registries.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::{future::Future, time::Duration};

use discovery::{
    Instance,
    registry::{Check, InstanceSet, Registration},
};
use tokio::{sync::watch, time::Instant};

/// Long enough for a busy machine. Tests of shorter times have their own limits.
const LIMIT: Duration = Duration::from_secs(15);

pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| panic!("did not happen within {limit:?}"))
}

/// The first set that fulfils the condition.
pub(crate) async fn until(
    sets: &mut watch::Receiver<InstanceSet>,
    mut wanted: impl FnMut(&InstanceSet) -> bool,
) -> InstanceSet {
    let found = async { sets.wait_for(|set| wanted(set)).await.unwrap().clone() };
    if let Ok(set) = tokio::time::timeout(LIMIT, found).await {
        return set;
    }
    panic!("not within {LIMIT:?}, last: {:?}", *sets.borrow());
}

/// Polls a condition that has no notification.
pub(crate) async fn eventually<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = holds().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn ids(set: &InstanceSet) -> Vec<&str> {
    set.instances.iter().map(|i| &*i.id).collect()
}

/// `trim_service` on this machine, with this check.
pub(crate) fn registration(port: u16, check: impl Into<Check>) -> Registration {
    let instance = Instance::named("trim_service", [127, 0, 0, 1].into(), port).unwrap();
    Registration::new(instance, check)
}
