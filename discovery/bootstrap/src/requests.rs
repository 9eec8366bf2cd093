//! Counts the requests that a server has accepted and not yet answered completely.
//!
//! A drain waits for requests, not for connections: one that a frozen client or a port scanner holds
//! stays open without a request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::guarded::{Guard, Guarded};

/// The count of one server. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(Arc<AtomicUsize>);

impl Requests {
    /// Counts one request until the result is dropped, and keeps `held` as long.
    pub(crate) fn begin<H>(&self, held: H) -> Unfinished<H> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Unfinished {
            count: Arc::clone(&self.0),
            _held: held,
        }
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request without a complete answer.
#[derive(Debug)]
pub(crate) struct Unfinished<H> {
    count: Arc<AtomicUsize>,
    _held: H,
}

impl<H> Unfinished<H> {
    /// A body that keeps the request counted until the body is dropped, sent or not.
    pub(crate) fn until_sent<B>(self, body: B) -> Guarded<B, Self> {
        Guarded::new(body, self)
    }
}

impl<H> Guard for Unfinished<H> {
    type End = ();
}

impl<H> Drop for Unfinished<H> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    #[test]
    fn a_request_counts_until_its_answer_is_dropped() {
        let requests = Requests::default();
        let first = requests.begin(());
        let second = requests.clone().begin(());
        assert_eq!(requests.unfinished(), 2);
        drop(first);
        let body = second.until_sent("answer".to_owned());
        assert_eq!(body.size_hint().exact(), Some(6));
        assert_eq!(requests.unfinished(), 1);
        drop(body);
        assert_eq!(requests.unfinished(), 0);
    }
}
