//! A byte stream that observes what is read: whether the server's first frame is HTTP/2's, whether it
//! has answered a call, and, for the keep-alive, the time of the last read.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::keep_alive::LastRead;

/// The length of a frame's header, and the place of the type in it (RFC 9113, 4.1).
const HEADER: usize = 9;
const FRAME_TYPE: usize = 3;
/// The type of a response's first frame, and of a server's first frame (RFC 9113, 3.4 and 8.1).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

/// A stream that reports the arrival of the server's first frame, and if it is a valid one.
pub(super) struct PrefaceStream<S> {
    stream: S,
    first_frame: Option<oneshot::Sender<bool>>,
    /// `None` after the first answer: nothing else is of interest.
    frames: Option<Frames>,
    /// Set when an answer begins. The driver may see the connection's end before the call that was
    /// answered runs, so the call cannot report it.
    answered: Arc<AtomicBool>,
    /// Set on every read, if the keep-alive is on.
    last_read: Option<Arc<LastRead>>,
}

/// The position in the sequence of frames.
#[derive(Default)]
struct Frames {
    header: [u8; HEADER],
    /// Number of bytes of the header that were read.
    seen: usize,
    /// Number of bytes of the payload that are still to come.
    payload: usize,
}

impl<S> PrefaceStream<S> {
    /// The stream, and a receiver of true if its first frame is HTTP/2's.
    pub(super) fn of(
        stream: S,
        answered: Arc<AtomicBool>,
        last_read: Option<Arc<LastRead>>,
    ) -> (Self, oneshot::Receiver<bool>) {
        let (first_frame, is_http2) = oneshot::channel();
        let preface = Self {
            stream,
            first_frame: Some(first_frame),
            frames: Some(Frames::default()),
            answered,
            last_read,
        };
        (preface, is_http2)
    }

    fn inspect(&mut self, mut read: &[u8]) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        while !read.is_empty() {
            if frames.payload > 0 {
                let skipped = frames.payload.min(read.len());
                frames.payload -= skipped;
                read = &read[skipped..];
                continue;
            }
            let part = (HEADER - frames.seen).min(read.len());
            frames.header[frames.seen..frames.seen + part].copy_from_slice(&read[..part]);
            frames.seen += part;
            read = &read[part..];
            if frames.seen <= FRAME_TYPE {
                return;
            }
            let kind = frames.header[FRAME_TYPE];
            if let Some(first_frame) = self.first_frame.take() {
                // The receiver is dropped if the attempt was cancelled.
                let _cancelled = first_frame.send(kind == SETTINGS);
            }
            if kind == HEADERS {
                self.answered.store(true, Ordering::Relaxed);
                self.frames = None;
                return;
            }
            if frames.seen == HEADER {
                let [high, middle, low, ..] = frames.header;
                let length = u32::from_be_bytes([0, high, middle, low]);
                frames.payload = usize::try_from(length).unwrap_or(usize::MAX);
                frames.seen = 0;
            }
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
        if self.frames.is_some() && polled.is_ready() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, payload, kind, 0, 0, 0, 0, 1];
        // Every byte looks like the type of a response's first frame.
        frame.resize(HEADER + usize::from(payload), HEADERS);
        frame
    }

    /// Reads these bytes in parts of this length: the first frame's validity, and if an answer began.
    fn inspect(bytes: &[u8], part: usize) -> (Option<bool>, bool) {
        let answered = Arc::<AtomicBool>::default();
        let (mut preface, mut first) = PrefaceStream::of((), Arc::clone(&answered), None);
        for part in bytes.chunks(part) {
            preface.inspect(part);
        }
        (first.try_recv().ok(), answered.load(Ordering::Relaxed))
    }

    #[test]
    fn an_answer_is_found_however_the_bytes_are_cut() {
        let ping = 6;
        let silent = [frame(SETTINGS, 6), frame(SETTINGS, 0), frame(ping, 8)].concat();
        let answered = [silent.clone(), frame(HEADERS, 20)].concat();
        for part in 1..answered.len() {
            assert_eq!(inspect(&silent, part), (Some(true), false), "{part}");
            assert_eq!(inspect(&answered, part), (Some(true), true), "{part}");
        }
    }

    #[test]
    fn four_bytes_show_another_protocol() {
        assert_eq!(inspect(b"HTT", 3).0, None);
        assert_eq!(inspect(b"HTTP", 4), (Some(false), false));
    }
}
