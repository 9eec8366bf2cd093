//! A byte stream that observes what is read: if the server's first frame is HTTP/2's, if it has answered
//! a call, and, for the keep-alive, the time of the last read. It also keeps a late answer from breaking
//! the connection.
//!
//! A server may send the end of an answer right after it has reset the stream, as grpc-java does at a
//! deadline. HTTP/2 makes this an error of that stream (RFC 9113, 5.1). h2 makes it one of the connection,
//! which would break all calls on it, unless the HEADERS frame does not end the stream. So the flag is
//! cleared.

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

use super::{
    frames::{END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS},
    keep_alive::LastRead,
};

/// Number of streams that the server has reset and whose late answers are recognised. They follow the
/// reset at once.
const RESETS: usize = 16;

/// What the server has sent so far. Reading it takes no lock.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// An answer has begun. The driver may see the connection's end before the call that was answered
    /// runs, so the call cannot report it.
    pub(super) answer: AtomicBool,
    /// A GOAWAY frame has begun.
    pub(super) goaway: AtomicBool,
}

/// A stream that reports the arrival of the server's first frame, and if it is a valid one.
pub(super) struct PrefaceStream<S> {
    stream: S,
    first_frame: Option<oneshot::Sender<io::Result<bool>>>,
    frames: Frames,
    /// The latest streams that the server has reset, and the next place in this list.
    resets: [u32; RESETS],
    next_reset: usize,
    received: Arc<Received>,
    /// True once an answer is noted there.
    has_answered: bool,
    /// Set on every read, if the keep-alive is on.
    last_read: Option<Arc<LastRead>>,
}

impl<S> PrefaceStream<S> {
    /// The stream, and a receiver of true if its first frame is HTTP/2's, or of the error in place of one.
    /// h2 keeps only the text of an error, which says less than its type.
    pub(super) fn of(
        stream: S,
        received: Arc<Received>,
        last_read: Option<Arc<LastRead>>,
    ) -> (Self, oneshot::Receiver<io::Result<bool>>) {
        let (first_frame, is_http2) = oneshot::channel();
        let preface = Self {
            stream,
            first_frame: Some(first_frame),
            frames: Frames::default(),
            resets: [0; RESETS],
            next_reset: 0,
            received,
            has_answered: false,
            last_read,
        };
        (preface, is_http2)
    }

    fn inspect(&mut self, read: &mut [u8]) {
        let mut at = 0;
        loop {
            let is_whole = self.frames.next_header(read, &mut at);
            if self.first_frame.is_some()
                && let Some(kind) = self.frames.kind()
                && let Some(first_frame) = self.first_frame.take()
            {
                // The receiver is dropped if the attempt was cancelled.
                let _cancelled = first_frame.send(Ok(kind == SETTINGS));
            }
            if !is_whole {
                return;
            }
            match self.frames.kind() {
                Some(HEADERS) => {
                    if !self.has_answered {
                        self.has_answered = true;
                        self.received.answer.store(true, Ordering::Relaxed);
                    }
                    // On most connections the list is empty: no stream has the number 0.
                    if self.resets[0] != 0 && self.resets.contains(&self.frames.stream()) {
                        // Flags that were read before the rest of the header are with h2 already.
                        if let Some(flags) = Frames::flags(read, at) {
                            *flags &= !END_STREAM;
                        }
                    }
                }
                Some(RST_STREAM) => {
                    self.resets[self.next_reset] = self.frames.stream();
                    self.next_reset = (self.next_reset + 1) % RESETS;
                }
                Some(GOAWAY) => self.received.goaway.store(true, Ordering::Relaxed),
                _ => {}
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
        let mut polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &mut polled
            && let Some(first_frame) = self.first_frame.take()
        {
            let text = io::Error::new(error.kind(), error.to_string());
            // The receiver is dropped if the attempt was cancelled.
            let _cancelled = first_frame.send(Err(std::mem::replace(error, text)));
        }
        if polled.is_ready() {
            self.inspect(&mut buf.filled_mut()[before..]);
        }
        if let Some(last_read) = &self.last_read
            && buf.filled().len() > before
        {
            last_read.now();
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> PrefaceStream<S> {
    /// Looks for the server's reason when a write fails before the first frame: with TLS 1.3 a refusal
    /// arrives after the handshake, and a write to the closed connection may come first.
    fn read_refusal(&mut self, cx: &mut Context<'_>) {
        let mut buffer = [0; 512];
        let mut buffer = ReadBuf::new(&mut buffer);
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_read(cx, &mut buffer)
            && let Some(first_frame) = self.first_frame.take()
        {
            // The receiver is dropped if the attempt was cancelled.
            let _cancelled = first_frame.send(Err(error));
        }
    }

    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.first_frame.is_some() && matches!(written, Poll::Ready(Err(_))) {
            self.read_refusal(cx);
        }
        written
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PrefaceStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // The frames of small calls are in one buffer, whose plain write is the cheaper system call.
        if let [bytes] = bufs {
            return self.poll_write(cx, bytes);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(cx, flushed)
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
        frame.resize(frame.len() + usize::from(payload), HEADERS);
        frame
    }

    /// A frame without payload.
    fn empty(kind: u8, flags: u8, stream: u8) -> Vec<u8> {
        vec![0, 0, 0, kind, flags, 0, 0, 0, stream]
    }

    /// Reads these bytes in parts of this length: the first frame's validity, and if an answer began.
    fn inspect(bytes: &[u8], part: usize) -> (Option<bool>, bool) {
        let received = Arc::<Received>::default();
        let (mut preface, mut first) = PrefaceStream::of((), Arc::clone(&received), None);
        for part in bytes.chunks(part) {
            preface.inspect(&mut part.to_vec());
        }
        (
            first.try_recv().ok().and_then(Result::ok),
            received.answer.load(Ordering::Relaxed),
        )
    }

    /// The bytes that h2 gets.
    fn passed_on(bytes: &[u8], part: usize) -> Vec<u8> {
        let (mut preface, _first) = PrefaceStream::of((), Arc::default(), None);
        let mut bytes = bytes.to_vec();
        for part in bytes.chunks_mut(part) {
            preface.inspect(part);
        }
        bytes
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

    #[test]
    fn an_answer_to_a_stream_that_was_reset_does_not_end_it_and_others_do() {
        let end_headers = 4;
        let end = END_STREAM | end_headers;
        let before = [
            empty(SETTINGS, 0, 0),
            frame(RST_STREAM, 4),
            empty(HEADERS, end, 3),
            empty(HEADERS, end, 1),
            empty(HEADERS, end, 5),
        ];
        let mut after = before.clone();
        after[3] = empty(HEADERS, end_headers, 1);
        let (before, after) = (before.concat(), after.concat());
        assert_eq!(passed_on(&before, before.len()), after);
        // A part that ends with the reset.
        assert_eq!(passed_on(&before, 9 + 9 + 4), after);
        for part in 1..before.len() {
            // A cut between the flags and the stream's number leaves them as they are.
            let passed = passed_on(&before, part);
            assert!(passed == after || passed == before, "{part}");
        }
    }
}
