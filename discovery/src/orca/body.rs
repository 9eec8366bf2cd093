//! A response body whose trailers have a load report.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::call::CallEnd;

pin_project! {
    /// The body of a response, with a load report in its trailers.
    #[derive(Debug)]
    pub struct ReportingBody<B> {
        #[pin]
        body: B,
        end: Option<CallEnd>,
    }
}

impl<B> ReportingBody<B> {
    pub(super) fn new(body: B, end: CallEnd) -> Self {
        Self {
            body,
            end: Some(end),
        }
    }
}

impl<B: Body> Body for ReportingBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        let Some(Ok(mut frame)) = frame else {
            return Poll::Ready(frame);
        };
        if let Some(trailers) = frame.trailers_mut()
            && let Some(end) = this.end.take()
        {
            end.finish(trailers);
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
