//! The request body of one attempt, as a transport reads it.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::BoxError;

/// A body that can be sent once.
pub(crate) struct OneShot {
    touched: AtomicBool,
    /// True once it was read to its end.
    complete: AtomicBool,
    /// Bytes of its messages that were read.
    sent: Arc<AtomicU64>,
    /// The caller's error, after which there is no more of it.
    failure: OnceLock<CallerError>,
    rest: Mutex<Rest>,
}

/// The error with which the caller's own body ended: an attempt fails by it, and no server.
#[derive(Clone, Debug)]
pub(crate) struct CallerError(Arc<BoxError>);

impl fmt::Display for CallerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request's body failed")
    }
}

impl Error for CallerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.0)
    }
}

impl OneShot {
    /// A body of the frames already read, followed by the rest. Whoever reads the messages counts their
    /// bytes in `sent`.
    pub(crate) fn new(
        read: Vec<Result<Frame<Bytes>, BoxError>>,
        body: UnsyncBoxBody<Bytes, BoxError>,
        sent: Arc<AtomicU64>,
    ) -> Self {
        Self {
            sent,
            touched: AtomicBool::new(false),
            complete: AtomicBool::new(false),
            failure: OnceLock::new(),
            rest: Mutex::new(Rest {
                prefix: read.into_iter(),
                body,
            }),
        }
    }

    /// Bytes of its messages, without framing, that were read so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// True if an attempt has asked for a frame: no other attempt can send the body.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// True if an attempt has read it to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// The caller's error, if an attempt has read it.
    pub(crate) fn failure(&self) -> Option<&CallerError> {
        self.failure.get()
    }

    /// Notes the end of the body.
    fn note(
        &self,
        frame: Option<Result<Frame<Bytes>, BoxError>>,
    ) -> Option<Result<Frame<Bytes>, BoxError>> {
        match frame {
            None => {
                self.complete.store(true, Ordering::Release);
                None
            }
            Some(Err(error)) => {
                let error = CallerError(Arc::new(error));
                let first = self.failure.get_or_init(|| error);
                Some(Err(first.clone().into()))
            }
            Some(Ok(frame)) => Some(Ok(frame)),
        }
    }
}

struct Rest {
    prefix: std::vec::IntoIter<Result<Frame<Bytes>, BoxError>>,
    body: UnsyncBoxBody<Bytes, BoxError>,
}

impl Rest {
    fn size_hint(&self) -> SizeHint {
        let read = self.prefix.as_slice().iter().flatten();
        let read: usize = read.filter_map(Frame::data_ref).map(Bytes::len).sum();
        let (read, rest) = (read as u64, self.body.size_hint());
        let mut all = SizeHint::new();
        all.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            all.set_upper(upper + read);
        }
        all
    }
}

/// The body of one attempt.
pub struct RequestBody(Kind);

enum Kind {
    Whole(Option<Bytes>),
    OneShot(Arc<OneShot>),
}

impl RequestBody {
    /// A body that consists of these bytes.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(Some(bytes)))
    }

    pub(crate) fn one_shot(body: Arc<OneShot>) -> Self {
        Self(Kind::OneShot(body))
    }

    /// The same body again, if its bytes are in memory.
    #[cfg(feature = "http")]
    pub(crate) fn copy(&self) -> Option<Self> {
        match &self.0 {
            Kind::Whole(bytes) => Some(Self(Kind::Whole(bytes.clone()))),
            Kind::OneShot(_) => None,
        }
    }

    /// All its bytes, if they are in memory.
    pub(crate) fn into_whole(self) -> Result<Bytes, Self> {
        match self.0 {
            Kind::Whole(bytes) => Ok(bytes.unwrap_or_default()),
            one_shot @ Kind::OneShot(_) => Err(Self(one_shot)),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestBody")
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(
                bytes
                    .take()
                    .filter(|bytes| !bytes.is_empty())
                    .map(|bytes| Ok(Frame::data(bytes))),
            ),
            Kind::OneShot(shared) => {
                shared.touched.store(true, Ordering::Release);
                let mut rest = shared.rest.lock().unwrap_or_else(PoisonError::into_inner);
                let frame = match rest.prefix.next() {
                    Some(frame) => Some(frame),
                    None => ready!(Pin::new(&mut rest.body).poll_frame(cx)),
                };
                Poll::Ready(shared.note(frame))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::OneShot(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::OneShot(shared) => {
                let rest = shared.rest.lock().unwrap_or_else(PoisonError::into_inner);
                rest.size_hint()
            }
        }
    }
}
