//! A body with a guard: the shared part of the wrappers around bodies.
//!
//! | guard | around | purpose |
//! |---|---|---|
//! | `requests::Unfinished` | a response body | counts the unfinished requests |
//! | `cancel_on_shutdown::Shutdown` | a request body | ends it when the server stops |
//! | `shed::Held` | a response body | counts the call for the concurrency limit |

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Accompanies a body for as long as it lives, and may end it early.
pub(crate) trait Guard {
    /// The reason for an early end.
    type End;

    /// Ready if the body must end. Called only while the body itself is pending.
    fn poll_end(&mut self, _cx: &mut Context<'_>) -> Poll<Self::End> {
        Poll::Pending
    }
}

pin_project! {
    /// A body and its guard. The body comes first: the guard is polled while it is pending.
    #[derive(Debug, Default)]
    pub(crate) struct Guarded<B, G> {
        #[pin]
        body: B,
        guard: G,
    }
}

impl<B, G> Guarded<B, G> {
    pub(crate) fn new(body: B, guard: G) -> Self {
        Self { body, guard }
    }
}

impl<B: Body, G: Guard<End = ()>> Body for Guarded<B, G> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(this.guard.poll_end(cx));
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
