//! Adds load reports to the trailers of a server's calls.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tonic::{body::Body, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::ReportingBody,
    call::{CallEnd, CallLoad},
    server::ServerLoad,
};
use crate::{BoxError, grpc};

impl ServerLoad {
    /// A layer that adds reports to the trailers of all calls of a server. It counts all of them,
    /// health checks included; see [`around`](Self::around).
    #[must_use]
    pub fn layer(&self) -> ReportLayer {
        ReportLayer(self.clone())
    }

    /// The same around one service of a server.
    #[must_use]
    pub fn around<S>(&self, service: S) -> Reporting<S> {
        Reporting {
            inner: service,
            load: self.clone(),
        }
    }
}

/// Adds the load of a server to the trailers of its calls, see [`ServerLoad::layer`].
#[derive(Clone, Debug)]
pub struct ReportLayer(ServerLoad);

impl<S> Layer<S> for ReportLayer {
    type Service = Reporting<S>;

    fn layer(&self, inner: S) -> Reporting<S> {
        self.0.around(inner)
    }
}

/// A service whose calls report its load, see [`ServerLoad::around`].
#[derive(Clone, Debug)]
pub struct Reporting<S> {
    inner: S,
    load: ServerLoad,
}

impl<S: NamedService> NamedService for Reporting<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<B>> for Reporting<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ReportingFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.load.count_call();
        let call = CallLoad::default();
        request.extensions_mut().insert(call.clone());
        ReportingFuture {
            response: self.inner.call(request),
            end: Some(CallEnd::new(self.load.clone(), call)),
        }
    }
}

pin_project! {
    /// A call under way.
    #[derive(Debug)]
    pub struct ReportingFuture<F> {
        #[pin]
        response: F,
        end: Option<CallEnd>,
    }
}

impl<F, R, E> Future for ReportingFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.response.poll(cx))?;
        let mut end = this.end.take().filter(|_| is_grpc(response.headers()));
        // A response of headers alone.
        if grpc::status(response.headers()).is_some()
            && let Some(end) = end.take()
        {
            end.finish(response.headers_mut());
        }
        Poll::Ready(Ok(response.map(|body| match end {
            Some(end) => Body::new(ReportingBody::new(body, end)),
            None => Body::new(body),
        })))
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
