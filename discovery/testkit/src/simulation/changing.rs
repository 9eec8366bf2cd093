//! A value that tasks can wait on. They wake in the order in which they started to wait.
//!
//! `tokio::sync::watch` wakes them in a random order, with a seed that the simulation cannot set.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Changing<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Changing<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            changed: Notify::new(),
        }
    }

    pub(crate) fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }

    /// Completes when `look` returns a value, at once if it does so now.
    pub(crate) async fn wait_for<R>(&self, look: impl Fn(&T) -> Option<R>) -> R {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before `look`, so that no change between the two is missed.
            changed.as_mut().enable();
            if let Some(found) = self.read(&look) {
                return found;
            }
            changed.await;
        }
    }
}
