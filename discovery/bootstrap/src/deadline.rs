//! The caller's deadline (`grpc-timeout`), which bounds a call from its headers on.
//!
//! tonic's server begins to count once it has the whole request message, and answers a call that is
//! over with `CANCELLED`.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use discovery::Deadline;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use crate::one_message::{OneMessage, UnaryMethods};

/// Answers gRPC calls by the caller's deadline, and with `DEADLINE_EXCEEDED` otherwise. Handlers
/// find the [`Deadline`] in the request's extensions.
#[derive(Clone)]
pub(crate) struct ByDeadline<S> {
    inner: S,
    methods: UnaryMethods,
}

impl<S> ByDeadline<S> {
    pub(crate) fn new(inner: S, methods: UnaryMethods) -> Self {
        Self { inner, methods }
    }
}

impl<S, B, A> tower_service::Service<Request<B>> for ByDeadline<S>
where
    S: tower_service::Service<Request<OneMessage<B>>, Response = Response<A>, Error = Infallible>,
    A: Default,
{
    type Response = Response<UntilDeadline<A>>;
    type Error = Infallible;
    type Future = Call<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Call<S::Future> {
        let deadline = match Deadline::from_headers(request.headers()) {
            Ok(deadline) => deadline,
            Err(error) => return Call::refused(Status::invalid_argument(error.to_string())),
        };
        let mut timer = None;
        if let Some(deadline) = deadline {
            if deadline.instant() <= Instant::now().into_std() {
                return Call::refused(exceeded());
            }
            request.extensions_mut().insert(deadline);
            timer = Some(Box::pin(sleep_until(deadline.instant().into())));
        }
        let (parts, body) = request.into_parts();
        let body = self.methods.checked(parts.uri.path(), body);
        Call::Running {
            call: self.inner.call(Request::from_parts(parts, body)),
            timer,
        }
    }
}

fn exceeded() -> Status {
    Status::deadline_exceeded("no answer by the deadline")
}

/// The timer of a deadline.
type Timer = Option<Pin<Box<Sleep>>>;

pin_project! {
    /// A call up to the headers of its answer.
    #[project = CallProjection]
    pub(crate) enum Call<F> {
        Refused { status: Option<Status> },
        Running { #[pin] call: F, timer: Timer },
    }
}

impl<F> Call<F> {
    fn refused(status: Status) -> Self {
        Self::Refused {
            status: Some(status),
        }
    }
}

impl<F, A> Future for Call<F>
where
    F: Future<Output = Result<Response<A>, Infallible>>,
    A: Default,
{
    type Output = Result<Response<UntilDeadline<A>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let status = match self.project() {
            CallProjection::Refused { status } => status.take().unwrap_or_else(exceeded),
            CallProjection::Running { call, timer } => {
                if let Poll::Ready(Ok(answer)) = call.poll(cx) {
                    let timer = timer.take();
                    return Poll::Ready(Ok(answer.map(|body| UntilDeadline::new(body, timer))));
                }
                let Some(timer) = timer else {
                    return Poll::Pending;
                };
                ready!(timer.as_mut().poll(cx));
                exceeded()
            }
        };
        let answer = status.into_http::<A>();
        Poll::Ready(Ok(answer.map(|body| UntilDeadline::new(body, None))))
    }
}

pin_project! {
    /// A response body that ends with `DEADLINE_EXCEEDED` at the deadline.
    pub(crate) struct UntilDeadline<B> {
        #[pin]
        body: B,
        timer: Timer,
        over: bool,
    }
}

impl<B> UntilDeadline<B> {
    fn new(body: B, timer: Timer) -> Self {
        Self {
            body,
            timer,
            over: false,
        }
    }
}

impl<B: Body<Data = Bytes>> Body for UntilDeadline<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if *this.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let Some(timer) = this.timer else {
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(cx));
        *this.over = true;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(&exceeded())))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Fails only for a message that cannot be a header value, which is percent-encoded before.
    let _added = status.add_header(&mut trailers);
    trailers
}
