//! The request body of one attempt, as a transport reads it.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;

use crate::BoxError;

/// A body that can be sent once.
pub(crate) struct OneShot {
    touched: AtomicBool,
    rest: Mutex<Rest>,
}

impl OneShot {
    /// A body of the frames already read, followed by the rest.
    pub(crate) fn new(
        read: Vec<Result<Frame<Bytes>, BoxError>>,
        body: UnsyncBoxBody<Bytes, BoxError>,
    ) -> Self {
        Self {
            touched: AtomicBool::new(false),
            rest: Mutex::new(Rest {
                prefix: read.into_iter(),
                body,
            }),
        }
    }

    /// True if an attempt has asked for a frame: no other attempt can send the body.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }
}

struct Rest {
    prefix: std::vec::IntoIter<Result<Frame<Bytes>, BoxError>>,
    body: UnsyncBoxBody<Bytes, BoxError>,
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

    /// All its bytes, if they are in memory.
    pub(crate) fn into_whole(self) -> Result<Bytes, Self> {
        match self.0 {
            Kind::Whole(bytes) => Ok(bytes.unwrap_or_default()),
            one_shot @ Kind::OneShot(_) => Err(Self(one_shot)),
        }
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
                if let Some(frame) = rest.prefix.next() {
                    return Poll::Ready(Some(frame));
                }
                Poll::Ready(ready!(Pin::new(&mut rest.body).poll_frame(cx)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::OneShot(_) => false,
        }
    }
}
