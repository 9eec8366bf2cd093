//! A byte stream that observes what is read: whether the server's first frame is HTTP/2's, and, for
//! the keep-alive, the time of the last read.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::keep_alive::LastRead;

/// The place of the type in a frame's header, and the type of a server's first frame (RFC 9113, 3.4
/// and 4.1).
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;

/// A stream that reports the arrival of the server's first frame, and if it is a valid one.
pub(super) struct PrefaceStream<S> {
    stream: S,
    first_frame: Option<oneshot::Sender<bool>>,
    header: [u8; FRAME_TYPE + 1],
    seen: usize,
    /// Set on every read, if the keep-alive is on.
    last_read: Option<Arc<LastRead>>,
}

impl<S> PrefaceStream<S> {
    /// The stream, and a receiver of true if its first frame is HTTP/2's.
    pub(super) fn of(
        stream: S,
        last_read: Option<Arc<LastRead>>,
    ) -> (Self, oneshot::Receiver<bool>) {
        let (first_frame, is_http2) = oneshot::channel();
        let preface = Self {
            stream,
            first_frame: Some(first_frame),
            header: [0; FRAME_TYPE + 1],
            seen: 0,
            last_read,
        };
        (preface, is_http2)
    }

    fn inspect(&mut self, read: &[u8]) {
        let wanted = self.header.len() - self.seen;
        let part = &read[..wanted.min(read.len())];
        self.header[self.seen..self.seen + part.len()].copy_from_slice(part);
        self.seen += part.len();
        if self.seen == self.header.len()
            && let Some(first_frame) = self.first_frame.take()
        {
            // The receiver is dropped if the attempt was cancelled.
            let _cancelled = first_frame.send(self.header[FRAME_TYPE] == SETTINGS);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefaceStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.first_frame.is_some() && polled.is_ready() {
            self.inspect(&buf.filled()[before..]);
        }
        if let Some(last_read) = &self.last_read
            && buf.filled().len() > before
        {
            last_read.now();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefaceStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
