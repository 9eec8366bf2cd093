//! The activity of one connection: the beginning of its client, and its requests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared by the connection, its requests and the limit of connections.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// The server has waited for the client's bytes.
    waited: AtomicBool,
    begun: AtomicBool,
    /// Requests of HTTP/1, which come one after the other.
    accepted: AtomicUsize,
    answered: AtomicUsize,
}

impl Activity {
    /// The client has sent nothing that can be read at once.
    pub(crate) fn waits(&self) {
        self.waited.store(true, Ordering::Relaxed);
    }

    /// The client has begun: with HTTP/2's preface and its settings, or a request of HTTP/1.
    pub(crate) fn begins(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// True if the client has had the time to begin and has not. Such a connection may be closed
    /// for another one.
    pub(crate) fn is_late(&self) -> bool {
        self.waited.load(Ordering::Relaxed) && !self.begun.load(Ordering::Relaxed)
    }

    /// True if the server has not looked at the connection yet.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.waited.load(Ordering::Relaxed) && !self.begun.load(Ordering::Relaxed)
    }

    /// A request of HTTP/1 has arrived with all its headers.
    pub(crate) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.begins();
    }

    pub(crate) fn answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of accepted requests, if all are answered: what arrives now is the next one's.
    pub(crate) fn between_requests(&self) -> Option<usize> {
        let accepted = self.accepted.load(Ordering::Relaxed);
        (accepted == self.answered.load(Ordering::Relaxed)).then_some(accepted)
    }
}
