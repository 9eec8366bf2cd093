//! The limit of the size of messages (`maxRequestMessageBytes` and `maxResponseMessageBytes` of a service
//! config).

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{BoxError, error::sources, protocol::Message};

/// A message that is longer than its method allows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a message of {size} bytes is longer than the {max} bytes that its method allows")]
pub(super) struct TooLong {
    pub(super) size: usize,
    pub(super) max: usize,
}

impl TooLong {
    /// The error behind this one, if there is one.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        sources(error).find_map(|error| error.downcast_ref().copied())
    }
}

/// A body that fails at the first message above the limit, as soon as its length is known.
pub(super) struct SizeLimit<B, M> {
    body: B,
    max: usize,
    /// The message that is being received.
    message: M,
    /// The error, for those who cannot see it in the body.
    found: Arc<OnceLock<TooLong>>,
}

impl<B, M: Message> SizeLimit<B, M> {
    pub(super) fn new(body: B, max: usize) -> Self {
        Self {
            body,
            max,
            message: M::default(),
            found: Arc::default(),
        }
    }

    /// The place in which the error will be seen.
    pub(super) fn found(&self) -> Arc<OnceLock<TooLong>> {
        Arc::clone(&self.found)
    }

    fn check(&mut self, mut data: &[u8]) -> Result<(), TooLong> {
        while !data.is_empty() {
            let taken = self.message.take(data);
            data = &data[taken..];
            if let Some(size) = self.message.announced()
                && size > self.max
            {
                let max = self.max;
                return Err(*self.found.get_or_init(|| TooLong { size, max }));
            }
            if self.message.is_whole() {
                self.message = M::default();
            }
        }
        Ok(())
    }
}

impl<B, M> Body for SizeLimit<B, M>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    M: Message + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        if let Some(data) = frame.data_ref()
            && let Err(error) = self.check(data)
        {
            return Poll::Ready(Some(Err(error.into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
