//! Refuses gRPC calls over a concurrency limit, before their requests are read: a client that is refused at
//! once can go elsewhere, and one that waits in a queue cannot.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use discovery::limit::{Limiter, Permit};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::Status;

use crate::guarded::{Guard, Guarded};

/// Beginnings of the paths that are never refused: a refused health check would mark the instance as
/// failed, and reflection is for operators.
const ALWAYS: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// Admits calls to `inner` up to a limit, if there is one.
#[derive(Clone)]
pub(crate) struct Shed<S> {
    inner: S,
    limiter: Option<Arc<Limiter>>,
}

impl<S> Shed<S> {
    pub(crate) fn new(inner: S, limiter: Option<Arc<Limiter>>) -> Self {
        Self { inner, limiter }
    }
}

impl<S, B, A> tower_service::Service<Request<B>> for Shed<S>
where
    S: tower_service::Service<Request<B>, Response = Response<A>, Error = Infallible>,
    A: Default,
{
    type Response = Response<Guarded<A, Held>>;
    type Error = Infallible;
    type Future = Call<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Call<S::Future> {
        let path = request.uri().path();
        let limiter = self
            .limiter
            .as_ref()
            .filter(|_| !ALWAYS.iter().any(|always| path.starts_with(always)));
        let held = match limiter.map(Limiter::try_acquire) {
            None => Held(None),
            Some(Some(permit)) => Held(Some(permit)),
            Some(None) => return Call::Refused,
        };
        Call::Admitted {
            call: self.inner.call(request),
            held: Some(held),
        }
    }
}

/// The permit of a call, until its answer is sent.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<Permit>);

impl Guard for Held {
    type End = ();
}

pin_project! {
    /// A call up to the headers of its answer.
    #[project = CallProjection]
    pub(crate) enum Call<F> {
        Refused,
        Admitted { #[pin] call: F, held: Option<Held> },
    }
}

impl<F, A> Future for Call<F>
where
    F: Future<Output = Result<Response<A>, Infallible>>,
    A: Default,
{
    type Output = Result<Response<Guarded<A, Held>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let CallProjection::Admitted { call, held } = self.project() else {
            return Poll::Ready(Ok(overloaded().into_http()));
        };
        let Ok(answer) = ready!(call.poll(cx));
        let mut held = held.take().unwrap_or_default();
        if let Some(permit) = &mut held.0 {
            permit.answered();
        }
        Poll::Ready(Ok(answer.map(|body| Guarded::new(body, held))))
    }
}

fn overloaded() -> Status {
    Status::resource_exhausted("too many requests at a time; try again later")
}
