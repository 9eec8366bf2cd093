//! The body of a response, whose errors are those of the call.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{channel::ResponseBody as Inner, retry::CallError};

/// The body of a response, with its trailers. The default is an empty body.
#[derive(Debug, Default)]
pub struct ResponseBody(pub(super) Inner);

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        Pin::new(&mut self.0).poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.remaining()
    }
}
