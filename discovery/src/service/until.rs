//! A service whose answers end when the server does.
//!
//! A stream that a client holds open, such as grpcurl's to the reflection service, would otherwise last
//! as long as the drain and count as a request that was not finished.

use std::{
    convert::Infallible,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tonic::{Status, body::Body, server::NamedService};

/// See the [module](self). Ends with UNAVAILABLE when the sender of `end` is gone.
#[derive(Clone)]
pub(super) struct Until<S> {
    inner: S,
    end: watch::Receiver<()>,
}

impl<S> Until<S> {
    pub(super) fn new(inner: S, end: watch::Receiver<()>) -> Self {
        Self { inner, end }
    }
}

impl<S: NamedService> NamedService for Until<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> tower_service::Service<Request<Body>> for Until<S>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.inner.call(request);
        let mut end = self.end.clone();
        Box::pin(async move {
            let ended = Box::pin(async move { while end.changed().await.is_ok() {} });
            Ok(answer.await?.map(|body| {
                Body::new(Ending {
                    body: Some(body),
                    ended,
                })
            }))
        })
    }
}

struct Ending {
    /// Gone once the end has come.
    body: Option<Body>,
    ended: BoxFuture<'static, ()>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(&mut body.frame()).poll(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.ended.as_mut().poll(cx));
        self.body = None;
        let status = Status::unavailable("the server is shutting down");
        let mut trailers = http::HeaderMap::new();
        Poll::Ready(Some(
            status
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
        ))
    }
}
