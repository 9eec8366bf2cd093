//! A service whose requests end when the server does.
//!
//! A stream that a client holds open, such as grpcurl's to the reflection service, would otherwise last
//! as long as the drain and count as a request that was not finished. Once its requests have ended, the
//! service ends its answers by itself.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use tokio::sync::watch;
use tonic::{Status, body::Body, server::NamedService};

/// See the [module](self). The end comes when the sender of `end` is dropped.
#[derive(Clone)]
pub(super) struct CancelOnShutdown<S> {
    inner: S,
    end: watch::Receiver<()>,
}

impl<S> CancelOnShutdown<S> {
    pub(super) fn new(inner: S, end: watch::Receiver<()>) -> Self {
        Self { inner, end }
    }
}

impl<S: NamedService> NamedService for CancelOnShutdown<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> tower_service::Service<Request<Body>> for CancelOnShutdown<S>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let mut end = self.end.clone();
        self.inner.call(request.map(|body| {
            Body::new(Ending {
                body,
                ended: Box::pin(async move { while end.changed().await.is_ok() {} }),
            })
        }))
    }
}

/// A request's body, up to the end.
struct Ending {
    body: Body,
    ended: BoxFuture<'static, ()>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.ended.as_mut().poll(cx));
        Poll::Ready(None)
    }
}
