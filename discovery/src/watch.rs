//! A value with one writer and many readers: a reader sees the latest value and waits for later ones.
//!
//! The types are those of tokio's `sync::watch` in a form of this crate's own, so that its API stays the
//! same when tokio's changes. A reader that is slow misses intermediate values, never the latest.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use discovery::watch;
//!
//! let (sender, mut receiver) = watch::channel(1);
//! sender.send_replace(2);
//! assert!(receiver.changed().await.is_ok());
//! assert_eq!(*receiver.borrow(), 2);
//! drop(sender);
//! assert!(receiver.changed().await.is_err());
//! # }
//! ```

use std::{fmt, ops::Deref};

use tokio::sync::watch;

/// A pair whose reader has seen `value`.
#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = watch::channel(value);
    (Sender(sender), Receiver(receiver))
}

/// The writer. Readers learn of its end when the last clone is dropped.
pub struct Sender<T>(watch::Sender<T>);

/// A reader. A clone has seen what the original has seen.
pub struct Receiver<T>(watch::Receiver<T>);

/// Read access to the value. The writer waits while it is held: drop it before an `await`.
pub struct Ref<'a, T>(watch::Ref<'a, T>);

/// The writer was dropped: the value does not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the writer of the watched value has ended")]
pub struct Ended;

impl<T> Sender<T> {
    /// A writer without readers.
    pub fn new(value: T) -> Self {
        Self(watch::Sender::new(value))
    }

    /// The current value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.borrow())
    }

    /// Sets the value, notifies the readers and returns the previous value.
    pub fn send_replace(&self, value: T) -> T {
        self.0.send_replace(value)
    }

    /// Changes the value in place and notifies the readers.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.0.send_modify(change);
    }

    /// Changes the value in place and notifies the readers if `change` returns true. Returns what
    /// `change` returned.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        self.0.send_if_modified(change)
    }

    /// A reader that has seen the current value.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver(self.0.subscribe())
    }

    /// True if there is no reader.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until there is no reader. Cancel safe.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl<T> Receiver<T> {
    /// The current value. Does not mark it as seen.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.borrow())
    }

    /// The current value, which is then seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        Ref(self.0.borrow_and_update())
    }

    /// Marks the current value as not seen: [`changed`](Self::changed) returns at once.
    pub fn mark_changed(&mut self) {
        self.0.mark_changed();
    }

    /// Marks the current value as seen.
    pub fn mark_unchanged(&mut self) {
        self.0.mark_unchanged();
    }

    /// True if the value has changed since this reader has seen it.
    ///
    /// # Errors
    ///
    /// If the writer was dropped.
    pub fn has_changed(&self) -> Result<bool, Ended> {
        self.0.has_changed().map_err(|_| Ended)
    }

    /// Waits for a value that this reader has not seen, and marks it as seen. Cancel safe: no value is
    /// missed.
    ///
    /// # Errors
    ///
    /// If the writer was dropped and its last value is seen.
    pub async fn changed(&mut self) -> Result<(), Ended> {
        self.0.changed().await.map_err(|_| Ended)
    }

    /// Waits for a value that satisfies `condition`, the current one included. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the writer was dropped and its last value does not satisfy it.
    pub async fn wait_for(
        &mut self,
        condition: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, Ended> {
        self.0.wait_for(condition).await.map(Ref).map_err(|_| Ended)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
