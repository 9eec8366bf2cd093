//! The task that drives one connection: requests out, answers and events in, pings in between.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    super::protocol::{self, Code, Event, Malformed, Received, Request, take_frame},
    error::Lost,
};

/// Requests without an answer before the next one waits. The server's own limit is 1000 for all of
/// its clients (`globalOutstandingLimit`).
pub(super) const IN_FLIGHT: usize = 256;

/// The space for one read, and the bytes after which a write begins.
const READ: usize = 16 << 10;
const WRITE: usize = 64 << 10;

/// Events that the user has not read. A user has one watch per node at most, so that only a server
/// that sends events without watches exceeds it.
pub(super) const EVENTS: usize = 1 << 18;

/// A request and the place for its answer.
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Bytes, Code>>,
}

/// A request without an answer yet.
struct Pending {
    xid: i32,
    sent: Instant,
    answer: oneshot::Sender<Result<Bytes, Code>>,
}

pub(super) struct Driver {
    calls: mpsc::Receiver<Call>,
    events: mpsc::Sender<Event>,
    /// The session's timeout.
    timeout: Duration,
    received: BytesMut,
    to_send: BytesMut,
    /// True if bytes were written and not flushed.
    unflushed: bool,
    pending: VecDeque<Pending>,
    last_xid: i32,
    last_sent: Instant,
    last_read: Instant,
}

impl Driver {
    /// `received` has the bytes that came after the handshake.
    pub(super) fn new(
        calls: mpsc::Receiver<Call>,
        events: mpsc::Sender<Event>,
        timeout: Duration,
        received: BytesMut,
    ) -> Self {
        let now = Instant::now();
        Self {
            calls,
            events,
            timeout,
            received,
            to_send: BytesMut::new(),
            unflushed: false,
            pending: VecDeque::new(),
            last_xid: 0,
            last_sent: now,
            last_read: now,
        }
    }

    /// Drives the connection until it ends or its user has dropped it. Records the reason before
    /// the calls without an answer end.
    pub(super) async fn run(
        mut self,
        stream: impl AsyncRead + AsyncWrite,
        ended: Arc<OnceLock<Lost>>,
    ) {
        let lost = self.drive(stream).await.err().unwrap_or(Lost::Closed);
        // Nothing else sets it.
        let _first = ended.set(lost);
    }

    async fn drive(&mut self, stream: impl AsyncRead + AsyncWrite) -> Result<(), Lost> {
        let (mut read, mut write) = split(stream);
        self.take_frames()?;
        loop {
            let has_output = self.to_send.has_remaining();
            let accepts = !has_output && self.pending.len() < IN_FLIGHT;
            let (silent_at, overdue_at) = (self.silent_at(), self.overdue_at());
            self.received.reserve(READ);
            // A read counts as a sign of life, so it comes before the limits.
            tokio::select! {
                biased;
                bytes = read.read_buf(&mut self.received) => {
                    if bytes? == 0 {
                        return Err(Lost::Closed);
                    }
                    self.last_read = Instant::now();
                    self.take_frames()?;
                }
                result = write_or_flush(&mut write, &mut self.to_send), if has_output || self.unflushed => {
                    result?;
                    self.unflushed = has_output;
                }
                () = sleep_until(silent_at) => {
                    return Err(Lost::Silent(self.silence()));
                }
                () = sleep_until(overdue_at), if !self.pending.is_empty() => {
                    return Err(Lost::Overdue(self.timeout));
                }
                () = sleep_until(self.last_sent + self.timeout / 3) => {
                    self.send(&protocol::ping());
                }
                call = self.calls.recv(), if accepts => match call {
                    Some(call) => self.accept(call),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Sends a request, and those that wait behind it in the same write.
    fn accept(&mut self, first: Call) {
        self.start(first);
        while self.pending.len() < IN_FLIGHT && self.to_send.len() < WRITE {
            match self.calls.try_recv() {
                Ok(call) => self.start(call),
                Err(_) => return,
            }
        }
    }

    fn start(&mut self, call: Call) {
        self.last_xid = self.last_xid.checked_add(1).unwrap_or(1);
        let xid = self.last_xid;
        self.send(&call.request.into_frame(xid));
        self.pending.push_back(Pending {
            xid,
            sent: self.last_sent,
            answer: call.answer,
        });
    }

    fn send(&mut self, frame: &[u8]) {
        self.to_send.extend_from_slice(frame);
        self.last_sent = Instant::now();
    }

    /// A third of the timeout after a ping without an answer, the server counts as dead. A third is
    /// left to resume the session with another one.
    fn silence(&self) -> Duration {
        self.timeout * 2 / 3
    }

    fn silent_at(&self) -> Instant {
        self.last_read + self.silence()
    }

    /// The server answers pings while it waits for the others, so requests have a limit as well.
    fn overdue_at(&self) -> Instant {
        let oldest = self.pending.front();
        oldest.map_or(self.last_sent, |pending| pending.sent) + self.timeout
    }

    fn take_frames(&mut self) -> Result<(), Lost> {
        while let Some(frame) = take_frame(&mut self.received)? {
            match protocol::received(&frame)? {
                Received::Pong => {}
                Received::Event(event) => {
                    if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
                        return Err(Lost::EventsNotRead(EVENTS));
                    }
                }
                Received::Answer { xid, result } => {
                    let pending = self.pending.pop_front();
                    let pending = pending
                        .filter(|pending| pending.xid == xid)
                        .ok_or(Malformed::ORDER)?;
                    // The caller may have gone.
                    let _gone = pending.answer.send(result);
                }
            }
        }
        Ok(())
    }
}

/// Writes a part of the bytes, or flushes what was written. It may be cancelled: no byte is lost.
async fn write_or_flush(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &mut BytesMut,
) -> Result<(), Lost> {
    if !bytes.has_remaining() {
        return Ok(stream.flush().await?);
    }
    match stream.write_buf(bytes).await? {
        0 => Err(Lost::Closed),
        _ => Ok(()),
    }
}
