//! Shares one watch among equal queries of a process.

#![cfg_attr(
    not(any(
        feature = "consul",
        feature = "dns",
        feature = "embedded",
        feature = "etcd",
        feature = "eureka",
        feature = "zookeeper"
    )),
    allow(
        dead_code,
        reason = "only registries behind a Cargo feature share watches"
    )
)]

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use tokio::runtime::{Handle, Id};

use super::{Instancer, Query, RegistryError};

type Watches = HashMap<(Id, String), Weak<dyn Instancer>>;

static WATCHES: LazyLock<Mutex<Watches>> = LazyLock::new(Mutex::default);

/// The key of a watch: the registry's settings, those that their `Debug` form leaves out, and the query.
/// Credentials belong to them, because they change the answers. The key does not leave this process.
pub(crate) fn watch_key(settings: &dyn Debug, others: &[&dyn Debug], query: &Query) -> String {
    format!("{settings:?} {others:?} {query:?}")
}

/// The running instancer under `key`, or the one that `start` makes. It ends with its last handle.
///
/// `key` must differ wherever the answers may differ, see [`watch_key`].
/// Watches of another tokio runtime are not joined, because they end with that runtime.
///
/// # Errors
///
/// [`RegistryError::NoRuntime`] outside a tokio runtime, and the error of `start`.
pub(crate) fn join_or_start<I: Instancer>(
    key: String,
    service: &str,
    start: impl FnOnce() -> Result<I, RegistryError>,
) -> Result<Arc<dyn Instancer>, RegistryError> {
    let runtime = Handle::try_current().map_err(|_| RegistryError::NoRuntime {
        action: format!("watch {service}"),
    })?;
    let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (runtime.id(), key);
    if let Some(running) = watches.get(&key).and_then(Weak::upgrade) {
        return Ok(running);
    }
    watches.retain(|_, watch| watch.strong_count() > 0);
    let started: Arc<dyn Instancer> = Arc::new(start()?);
    watches.insert(key, Arc::downgrade(&started));
    Ok(started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::StaticRegistry;

    fn join(key: &str, start: impl FnOnce() -> StaticRegistry) -> Arc<dyn Instancer> {
        join_or_start(key.to_owned(), "trim", || Ok(start())).unwrap()
    }

    #[tokio::test]
    async fn joins_what_runs_and_starts_anew_after_the_last_left() {
        let start = || StaticRegistry::new([]);
        let first = join("a", start);
        let second = join("a", || panic!("a second watch was started"));
        let other = join("b", start);
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &other));
        let ended = Arc::downgrade(&first);
        drop((first, second));
        assert!(ended.upgrade().is_none());
        let mut started = false;
        join("a", || {
            started = true;
            start()
        });
        assert!(started);
    }
}
