//! Prints the beginning and the cancellation of each call that has a stream.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body, server::NamedService};
use tower_service::Service;

/// Methods without a stream.
const UNARY: [&str; 2] = ["EmptyCall", "UnaryCall"];

/// A call under way. Dropped before its end, it was cancelled.
struct Call {
    path: String,
    ended: AtomicBool,
}

impl Call {
    fn begin(path: &str) -> Self {
        println!("begun {path}");
        Self {
            path: path.to_owned(),
            ended: AtomicBool::new(false),
        }
    }

    /// Notes the end; true the first time.
    fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }

    fn cancelled(&self) {
        if self.end() {
            println!("cancelled {}", self.path);
        }
    }
}

/// The response's side of a call.
struct Answering(Arc<Call>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.cancelled();
    }
}

/// Prints what happens to the calls of a service.
#[derive(Clone, Debug)]
pub(crate) struct Report<S>(pub(crate) S);

impl<S: NamedService> NamedService for Report<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Report<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if UNARY.iter().any(|name| path.ends_with(name)) {
            return Box::pin(self.0.call(request));
        }
        let call = Arc::new(Call::begin(path));
        let answering = Answering(Arc::clone(&call));
        let request = request.map(|body| {
            Body::new(body.map_err(move |error| {
                // tonic ends the stream of requests here, as if the client had.
                call.cancelled();
                error
            }))
        });
        let response = self.0.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(response.map(|inner| {
                if inner.is_end_stream() {
                    answering.0.end();
                }
                Body::new(ResponseBody { inner, answering })
            }))
        })
    }
}

/// Notes the end of a response.
struct ResponseBody {
    inner: Body,
    answering: Answering,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        let is_end = match &frame {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            Poll::Ready(None) => true,
            _ => false,
        };
        if is_end {
            self.answering.0.end();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
