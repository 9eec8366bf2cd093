//! A service whose requests end when the server stops.
//!
//! A stream that a client holds open, such as grpcurl's to the reflection service, would otherwise
//! last as long as the drain and count as an unfinished request. When its request body ends, the
//! service ends its response.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use tokio::sync::watch;
use tonic::{body::Body, server::NamedService};

use crate::guarded::{Guard, Guarded};

/// Ends the requests of `inner` when the sender of `end` is dropped.
#[derive(Clone)]
pub(crate) struct CancelOnShutdown<S> {
    inner: S,
    end: watch::Receiver<()>,
}

impl<S> CancelOnShutdown<S> {
    pub(crate) fn new(inner: S, end: watch::Receiver<()>) -> Self {
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
        let guard = Shutdown(Box::pin(
            async move { while end.changed().await.is_ok() {} },
        ));
        self.inner
            .call(request.map(|body| Body::new(Guarded::new(body, guard))))
    }
}

/// Ends a request body when the server stops.
pub(crate) struct Shutdown(BoxFuture<'static, ()>);

impl Guard for Shutdown {
    type End = ();

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_unpin(cx)
    }
}
