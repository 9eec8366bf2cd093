//! A connection in use by one request, and the response's body, which returns it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, time::timeout};

use super::{link::Link, pool::Pool};
use crate::BoxError;

/// The rest of a body that nobody wants is read up to this length and time, so that the connection can
/// be used again. Beyond, another connection is cheaper.
const DRAIN: u64 = 64 << 10;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A connection that carries a request.
pub(super) struct Lease {
    pub(super) pool: Arc<Pool>,
    pub(super) link: Link,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Returns the connection after a response that was read to its end.
    fn end(self) {
        let Self {
            pool,
            mut link,
            permit,
        } = self;
        match link.is_ready() {
            // The server has closed it, or will.
            None => {}
            Some(true) => {
                pool.put(link);
                drop(permit);
            }
            // The connection's task has to run first, or is still sending the request.
            Some(false) => {
                let Ok(runtime) = Handle::try_current() else {
                    return;
                };
                runtime.spawn(async move {
                    if link.sender.ready().await.is_ok() {
                        pool.put(link);
                    }
                    drop(permit);
                });
            }
        }
    }
}

/// The body of a response.
pub(super) struct LeasedBody {
    body: Option<Incoming>,
    lease: Option<Lease>,
}

impl LeasedBody {
    pub(super) fn new(body: Incoming, lease: Lease) -> Self {
        let mut leased = Self {
            body: Some(body),
            lease: Some(lease),
        };
        leased.look();
        leased
    }

    /// Returns the connection if the body is at its end.
    fn look(&mut self) {
        if self.body.as_ref().is_none_or(Body::is_end_stream)
            && let Some(lease) = self.lease.take()
        {
            lease.end();
        }
    }
}

impl Body for LeasedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => self.look(),
            Some(Err(_)) => {
                self.body = None;
                self.lease = None;
            }
            None => {
                self.body = None;
                self.look();
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for LeasedBody {
    fn drop(&mut self) {
        let (Some(mut body), Some(lease)) = (self.body.take(), self.lease.take()) else {
            return;
        };
        let is_short = body.size_hint().upper().is_some_and(|rest| rest <= DRAIN);
        let (true, Ok(runtime)) = (is_short, Handle::try_current()) else {
            // This side ends the connection.
            lease.link.expect_end();
            return;
        };
        runtime.spawn(async move {
            let drained = timeout(DRAIN_TIME, async {
                while let Some(frame) = body.frame().await {
                    frame?;
                }
                Ok::<_, hyper::Error>(())
            });
            match drained.await {
                Ok(Ok(())) => lease.end(),
                Ok(Err(_)) | Err(_) => lease.link.expect_end(),
            }
        });
    }
}
