//! One watch per service per process: whoever asks for the same one joins it, and it ends with the
//! last of them.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use super::Instancer;

type Watches = HashMap<(tokio::runtime::Id, String), Weak<dyn Instancer>>;

static WATCHES: LazyLock<Mutex<Watches>> = LazyLock::new(Mutex::default);

/// The live instancer under `key`, or the one that `start` makes.
///
/// `key` must tell apart everything that changes the answers: the server, the credentials, the
/// query. Watches of another tokio runtime are not joined, since they end with it.
///
/// # Panics
///
/// Outside a tokio runtime, like everything that starts a task.
#[allow(
    dead_code,
    reason = "a build without any registry feature shares nothing"
)]
pub(crate) fn join_or_start<I: Instancer>(
    key: String,
    start: impl FnOnce() -> I,
) -> Arc<dyn Instancer> {
    let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (tokio::runtime::Handle::current().id(), key);
    if let Some(running) = watches.get(&key).and_then(Weak::upgrade) {
        return running;
    }
    watches.retain(|_, watch| watch.strong_count() > 0);
    let started: Arc<dyn Instancer> = Arc::new(start());
    watches.insert(key, Arc::downgrade(&started));
    started
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::StaticRegistry;

    #[tokio::test]
    async fn joins_what_runs_and_starts_anew_after_the_last_left() {
        let start = || StaticRegistry::new([]);
        let first = join_or_start("a".into(), start);
        let second = join_or_start("a".into(), || -> StaticRegistry {
            panic!("a second watch was started")
        });
        let other = join_or_start("b".into(), start);
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &other));
        let ended = Arc::downgrade(&first);
        drop((first, second));
        assert!(ended.upgrade().is_none());
        let mut started = false;
        join_or_start("a".into(), || {
            started = true;
            start()
        });
        assert!(started);
    }
}
