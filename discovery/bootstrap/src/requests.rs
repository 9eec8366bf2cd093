//! Counts the requests that a server has taken and not yet answered to the end.
//!
//! What a drain waits for is requests. Connections say too little: one that a frozen client or a
//! port scanner holds stays open, and carries nothing.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// The count of one server. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(Arc<AtomicUsize>);

impl Requests {
    /// Counts one until the result is dropped.
    pub(super) fn begin(&self) -> Unfinished {
        self.0.fetch_add(1, Ordering::Relaxed);
        Unfinished(Arc::clone(&self.0))
    }

    pub(super) fn unfinished(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Unfinished(Arc<AtomicUsize>);

impl Unfinished {
    /// A body that keeps the request counted until it was sent or given up.
    pub(super) fn until_sent<B>(self, body: B) -> Counted<B> {
        Counted {
            body,
            _request: self,
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// The body of a counted request's response.
    pub(super) struct Counted<B> {
        #[pin]
        body: B,
        _request: Unfinished,
    }
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_its_answer_is_gone() {
        let requests = Requests::default();
        let first = requests.begin();
        let second = requests.clone().begin();
        assert_eq!(requests.unfinished(), 2);
        drop(first);
        let body = second.until_sent("answer".to_owned());
        assert_eq!(body.size_hint().exact(), Some(6));
        assert_eq!(requests.unfinished(), 1);
        drop(body);
        assert_eq!(requests.unfinished(), 0);
    }
}
