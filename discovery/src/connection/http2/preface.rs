//! What a client listens for in the bytes that come: whether the server's first frame is HTTP/2's,
//! and, for the keep-alive, that anything comes at all.

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

/// Where a frame's header says of what type it is, and the type a server must begin with.
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;

/// A stream that tells when the server's first frame has begun to come, and whether it is one.
pub(super) struct PrefaceStream<S> {
    stream: S,
    greeted: Option<oneshot::Sender<bool>>,
    header: [u8; FRAME_TYPE + 1],
    seen: usize,
    /// Told of everything that comes, where somebody wants to know.
    last_read: Option<Arc<LastRead>>,
}

impl<S> PrefaceStream<S> {
    /// The stream, and what will be told of its first frame.
    pub(super) fn of(
        stream: S,
        last_read: Option<Arc<LastRead>>,
    ) -> (Self, oneshot::Receiver<bool>) {
        let (greeted, told) = oneshot::channel();
        let preface = Self {
            stream,
            greeted: Some(greeted),
            header: [0; FRAME_TYPE + 1],
            seen: 0,
            last_read,
        };
        (preface, told)
    }

    fn look_at(&mut self, read: &[u8]) {
        let wanted = self.header.len() - self.seen;
        let part = &read[..wanted.min(read.len())];
        self.header[self.seen..self.seen + part.len()].copy_from_slice(part);
        self.seen += part.len();
        if self.seen == self.header.len()
            && let Some(greeted) = self.greeted.take()
        {
            // Nobody listens any more when the attempt was given up.
            let _given_up = greeted.send(self.header[FRAME_TYPE] == SETTINGS);
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
        if self.greeted.is_some() && polled.is_ready() {
            self.look_at(&buf.filled()[before..]);
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
