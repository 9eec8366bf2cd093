//! The body of a request, which waits for its share of the connection's memory.
//!
//! The memory that the requests of one HTTP/2 connection take is bounded by the number of streams and
//! the flow-control window of each, as long as their bodies are not read. Reading a large one takes
//! memory beyond that: its size is reserved first, in the order of arrival, until the request is
//! answered. A message is reserved as a whole, so that messages in part do not wait for one another.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use discovery::BoxError;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::messages::Messages;

/// Bodies and messages up to this size are read at once.
const SMALL: usize = 32 << 10;
/// Reserved for a body of unknown length.
const UNKNOWN: usize = 1 << 20;
/// A compressed message takes a multiple of its size.
const EXPANSION: usize = 8;
/// Bytes per permit.
const UNIT: usize = 1 << 10;

/// The memory for the large requests of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    units: Arc<Semaphore>,
    total: u32,
}

impl Memory {
    pub(crate) fn new(bytes: u32) -> Self {
        let total = bytes.div_ceil(1 << 10).max(1);
        // At most 2^22 units.
        let units = usize::try_from(total).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units)),
            total,
        }
    }

    /// Units for `bytes`. What is larger than the whole memory takes all of it.
    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).map_or(self.total, |units| units.min(self.total))
    }
}

/// The memory that one request has reserved, shared with its answer: dropped when both are done.
#[derive(Debug)]
pub(crate) struct Reserved {
    memory: Memory,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Reserved {
    pub(crate) fn none(memory: Memory) -> Self {
        Self {
            memory,
            permit: Mutex::default(),
        }
    }

    fn set(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

/// The memory that a body will take.
#[derive(Debug)]
enum Extent {
    /// gRPC: each message begins with its length.
    Messages(Messages),
    /// HTTP: the length is announced, or unknown. True once it is reserved.
    Whole(bool),
}

/// The body of a request.
#[must_use = "a body does nothing until it is polled"]
pub struct RequestBody<B = Incoming> {
    body: B,
    /// `None` if the connection has one request at a time.
    reservation: Option<Reservation>,
}

struct Reservation {
    extent: Extent,
    reserved: Arc<Reserved>,
    waiting: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// The frame with the length of a message that waits: tonic takes memory for the whole message as
    /// soon as it sees the length.
    held: Option<Frame<Bytes>>,
}

impl<B> RequestBody<B> {
    /// A body that is read without a reservation.
    pub(crate) fn unlimited(body: B) -> Self {
        Self {
            body,
            reservation: None,
        }
    }

    /// A body of gRPC messages.
    pub(crate) fn messages(body: B, reserved: Arc<Reserved>) -> Self {
        Self::reserving(body, reserved, Extent::Messages(Messages::default()))
    }

    /// A body that is read as a whole.
    pub(crate) fn whole(body: B, reserved: Arc<Reserved>) -> Self {
        Self::reserving(body, reserved, Extent::Whole(false))
    }

    fn reserving(body: B, reserved: Arc<Reserved>, extent: Extent) -> Self {
        let reservation = Some(Reservation {
            extent,
            reserved,
            waiting: None,
            held: None,
        });
        Self { body, reservation }
    }
}

impl Reservation {
    /// Reserves memory for `bytes` in place of what is reserved.
    fn begin(&mut self, bytes: usize) {
        self.reserved.set(None);
        if bytes <= SMALL {
            return;
        }
        let memory = &self.reserved.memory;
        let units = memory.units(bytes);
        if let Ok(permit) = Arc::clone(&memory.units).try_acquire_many_owned(units) {
            self.reserved.set(Some(permit));
            return;
        }
        let memory = Arc::clone(&memory.units);
        // The semaphore is never closed.
        let permit = async move { memory.acquire_many_owned(units).await.ok() };
        self.waiting = Some(Box::pin(permit));
    }

    fn poll_reserved(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(waiting) = &mut self.waiting {
            let permit = ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            self.reserved.set(permit);
        }
        Poll::Ready(())
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Some(reservation) = &mut this.reservation else {
            return Pin::new(&mut this.body).poll_frame(cx);
        };
        if let Extent::Whole(begun @ false) = &mut reservation.extent {
            *begun = true;
            let bytes = this.body.size_hint().exact();
            let bytes = bytes.map_or(UNKNOWN, |bytes| bytes.try_into().unwrap_or(usize::MAX));
            reservation.begin(bytes);
        }
        ready!(reservation.poll_reserved(cx));
        if let Some(frame) = reservation.held.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        if let (Extent::Messages(messages), Some(bytes)) =
            (&mut reservation.extent, frame.data_ref())
        {
            // The largest, if several begin in one frame: the small ones are within the window.
            let mut largest = None;
            messages.follow(bytes, |message| {
                let expansion = if message.is_compressed { EXPANSION } else { 1 };
                let bytes = (message.length as usize).saturating_mul(expansion);
                largest = largest.max(Some(bytes));
            });
            if let Some(bytes) = largest {
                reservation.begin(bytes);
                if reservation.poll_reserved(cx).is_pending() {
                    reservation.held = Some(frame);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let held = self.reservation.as_ref().is_some_and(|r| r.held.is_some());
        !held && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;

    use super::*;

    /// A body of chunks.
    struct Chunks(Vec<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let next = (!self.0.is_empty()).then(|| Ok(Frame::data(self.0.remove(0))));
            Poll::Ready(next)
        }
    }

    /// A message of this length, in two chunks.
    fn message(flag: u8, length: u32) -> Chunks {
        let head = [&[flag][..], &length.to_be_bytes(), b"first"].concat();
        Chunks(vec![head.into(), Bytes::from_static(b"second")])
    }

    /// True if the next chunk is there, false if it must wait.
    fn next(body: &mut RequestBody<Chunks>) -> bool {
        let mut body = Pin::new(body);
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).now_or_never();
        frame.is_some_and(|frame| frame.unwrap().is_ok())
    }

    #[test]
    fn large_messages_wait_until_others_are_answered_and_small_ones_do_not() {
        let memory = Memory::new(4 << 20);
        let begin = |chunks| {
            let reserved = Arc::new(Reserved::none(memory.clone()));
            let body = RequestBody::messages(chunks, Arc::clone(&reserved));
            (body, reserved)
        };
        let (mut first, answer) = begin(message(0, 3 << 20));
        assert!(next(&mut first) && next(&mut first));
        let (mut second, _answer) = begin(message(0, 2 << 20));
        // Its first bytes tell its length, and are not passed on before the memory is there.
        assert!(!next(&mut second) && !second.is_end_stream());
        let (mut small, _answer) = begin(message(0, 20_000));
        assert!(next(&mut small) && next(&mut small));
        let (mut compressed, _answer) = begin(message(1, 20_000));
        assert!(!next(&mut compressed), "in the order of arrival");
        drop(first);
        assert!(!next(&mut second), "the first is not answered");
        drop(answer);
        for body in [&mut second, &mut compressed] {
            assert!(next(body) && next(body));
        }
    }

    #[test]
    fn a_whole_body_reserves_its_length_and_at_most_all() {
        let memory = Memory::new(1 << 20);
        let begin = || {
            let reserved = Arc::new(Reserved::none(memory.clone()));
            RequestBody::whole(Chunks(vec![Bytes::from_static(b"x")]), reserved)
        };
        let mut first = begin();
        assert!(next(&mut first));
        let mut second = begin();
        assert!(!next(&mut second));
        drop(first);
        assert!(next(&mut second));
        assert_eq!(memory.units(usize::MAX), 1 << 10);
    }
}
