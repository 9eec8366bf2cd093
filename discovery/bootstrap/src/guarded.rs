//! A stream with a guard: the shared part of the wrappers around connections and bodies.
//!
//! | guard | around | purpose |
//! |---|---|---|
//! | `preface::PrefaceLimit` | a connection | sets a time limit for its beginning |
//! | `requests::Unfinished` | a response body | counts the unfinished requests |
//! | `cancel_on_shutdown::Shutdown` | a request body | ends it when the server stops |

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Accompanies a stream for as long as it lives, and may end it early.
pub(crate) trait Guard {
    /// The reason for an early end.
    type End;

    /// Ready if the stream must end. Called only while the stream itself is pending.
    fn poll_end(&mut self, _cx: &mut Context<'_>) -> Poll<Self::End> {
        Poll::Pending
    }

    /// Called with the bytes of each read.
    fn received(&mut self, _bytes: &[u8]) {}
}

pin_project! {
    /// A stream and its guard. The stream comes first: the guard is asked while it is pending.
    #[derive(Debug)]
    pub(crate) struct Guarded<S, G> {
        #[pin]
        stream: S,
        guard: G,
    }
}

impl<S, G> Guarded<S, G> {
    pub(crate) fn new(stream: S, guard: G) -> Self {
        Self { stream, guard }
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
        if let Poll::Ready(frame) = this.stream.poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(this.guard.poll_end(cx));
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}

impl<S: AsyncRead, G: Guard<End = io::Error>> AsyncRead for Guarded<S, G> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        let Poll::Ready(read) = this.stream.poll_read(cx, buffer) else {
            return this.guard.poll_end(cx).map(Err);
        };
        if buffer.filled().len() > before {
            this.guard.received(&buffer.filled()[before..]);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite, G> AsyncWrite for Guarded<S, G> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
