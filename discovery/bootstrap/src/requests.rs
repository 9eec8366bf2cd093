//! Counts the requests that a server has accepted and not yet answered completely.
//!
//! A drain waits for requests, not for connections: one that a frozen client or a port scanner holds
//! stays open without a request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::guarded::{Guard, Guarded};

/// An extension of a response that has no end of its own, such as a stream of server-sent events. It should
/// end when the [`Stage`](crate::Stage) changes; if its client does not read, a shutdown does not count
/// it as an unfinished request.
#[derive(Clone, Copy, Debug)]
pub struct Endless;

/// The count of one server. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(Arc<AtomicUsize>);

impl Requests {
    /// Counts one request until the result is dropped, and keeps `held` as long.
    pub(crate) fn begin<H>(&self, held: H) -> Unfinished<H> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Unfinished {
            count: Some(Arc::clone(&self.0)),
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
    /// `None` once it no longer counts.
    count: Option<Arc<AtomicUsize>>,
    _held: H,
}

impl<H> Unfinished<H> {
    /// Counts it no longer.
    pub(crate) fn forget(&mut self) {
        if let Some(count) = self.count.take() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

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
        self.forget();
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
        let mut endless = requests.begin(());
        endless.forget();
        assert_eq!(requests.unfinished(), 0);
        drop(endless);
        assert_eq!(requests.unfinished(), 0);
    }
}
