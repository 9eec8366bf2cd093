//! The spans of gRPC calls that a server receives (gRFC A72).

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use discovery::Code;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tracing::{
    Instrument as _, Span,
    field::{Empty, display},
    instrument::Instrumented,
    trace_span,
};

use crate::{
    otlp,
    spans::{TARGET, under_caller},
};

/// Makes a span for each call, which is current while the call is handled.
#[derive(Clone)]
pub(crate) struct Traced<S>(S);

impl<S> Traced<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S, B, A> tower_service::Service<Request<B>> for Traced<S>
where
    S: tower_service::Service<Request<B>, Response = Response<A>, Error = Infallible>,
{
    type Response = Response<TracedBody<A>>;
    type Error = Infallible;
    type Future = TracedCall<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let span = span(&request);
        let call = span.in_scope(|| self.0.call(request));
        TracedCall {
            call: call.instrument(span),
        }
    }
}

/// The span of a call; disabled if nothing is exported, and for health checks and reflection.
fn span<B>(request: &Request<B>) -> Span {
    let path = request.uri().path();
    if !otlp::is_on() || path.starts_with("/grpc.") {
        return Span::none();
    }
    let method = path.strip_prefix('/').unwrap_or(path);
    let span = trace_span!(
        target: TARGET,
        parent: None,
        "recv",
        otel.name = format!("Recv.{}", method.replace('/', ".")),
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = Empty,
        "error.type" = Empty,
        server.address = request.uri().host(),
        server.port = request.uri().port_u16(),
    );
    under_caller(&span, request.headers());
    span
}

pin_project! {
    /// A call up to the headers of its answer.
    pub(crate) struct TracedCall<F> {
        #[pin]
        call: Instrumented<F>,
    }
}

impl<F, A> Future for TracedCall<F>
where
    F: Future<Output = Result<Response<A>, Infallible>>,
{
    type Output = Result<Response<TracedBody<A>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Ok(answer) = ready!(this.call.as_mut().poll(cx));
        let span = this.call.span();
        let mut open = (!span.is_disabled()).then(|| OpenSpan(span.clone()));
        // A response that is its head alone.
        if let Some(span) = &open
            && let Some(code) = status(answer.headers())
        {
            span.end(code, answer.headers());
            open = None;
        }
        Poll::Ready(Ok(answer.map(|body| TracedBody { body, open })))
    }
}

/// The status in headers or trailers.
fn status(headers: &HeaderMap) -> Option<Code> {
    let number: usize = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(Code::ALL.get(number).copied().unwrap_or(Code::Unknown))
}

/// A span without a status.
struct OpenSpan(Span);

impl OpenSpan {
    fn end(&self, code: Code, headers: &HeaderMap) {
        let span = &self.0;
        span.record("rpc.response.status_code", code.name());
        if code == Code::Ok {
            span.record("otel.status_code", "OK");
        } else {
            span.record("error.type", code.name());
            span.record("otel.status_code", "ERROR");
            let message = headers.get("grpc-message");
            let message = message.and_then(|value| value.to_str().ok()).unwrap_or("");
            let description = format_args!("{code}, {message}");
            span.record("otel.status_description", display(description));
        }
    }
}

pin_project! {
    /// The body of an answer, whose span ends with it.
    pub(crate) struct TracedBody<B> {
        #[pin]
        body: B,
        open: Option<OpenSpan>,
    }

    impl<B> PinnedDrop for TracedBody<B> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(span) = this.project().open.take() {
                span.end(Code::Cancelled, &HeaderMap::new());
            }
        }
    }
}

impl<B: Body> Body for TracedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(span) = this.open else {
            return this.body.poll_frame(cx);
        };
        let frame = span.0.in_scope(|| this.body.poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            span.end(status(trailers).unwrap_or(Code::Unknown), trailers);
            *this.open = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
