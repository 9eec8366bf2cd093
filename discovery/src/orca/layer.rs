//! Adds load reports to the trailers of a server's calls.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
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
    report::{HEADER, LoadReport},
    server::ServerLoad,
};
use crate::{
    BoxError,
    ejection::Classification,
    grpc::{self, Grpc},
    protocol::Protocol as _,
};

/// Adds the load of a server to the trailers of its calls, see [`ServerLoad::layer`].
#[derive(Clone, Debug)]
pub struct ReportLayer(ServerLoad);

impl ReportLayer {
    pub(super) fn new(load: ServerLoad) -> Self {
        Self(load)
    }
}

impl<S> Layer<S> for ReportLayer {
    type Service = Reporting<S>;

    fn layer(&self, inner: S) -> Reporting<S> {
        self.0.around(inner)
    }
}

/// The load of one call: an extension of its request, for the handler.
///
/// Its figures replace those of the server in the call's report.
#[derive(Clone, Debug, Default)]
pub struct CallLoad(Arc<Mutex<Option<Box<LoadReport>>>>);

impl CallLoad {
    /// Sets figures of the call.
    pub fn update(&self, update: impl FnOnce(&mut LoadReport)) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        update(report.get_or_insert_default());
    }

    fn take(&self) -> Option<Box<LoadReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A service whose calls report its load, see [`ServerLoad::around`].
#[derive(Clone, Debug)]
pub struct Reporting<S> {
    inner: S,
    load: ServerLoad,
}

impl<S> Reporting<S> {
    pub(super) fn new(inner: S, load: ServerLoad) -> Self {
        Self { inner, load }
    }
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
            end: Some(CallEnd {
                load: self.load.clone(),
                call,
            }),
        }
    }
}

/// What a call's report is made of, at its end.
#[derive(Debug)]
pub(super) struct CallEnd {
    load: ServerLoad,
    call: CallLoad,
}

impl CallEnd {
    /// Counts the call's status, and adds the report to the headers that have it.
    pub(super) fn finish(self, trailers: &mut HeaderMap) {
        let code = grpc::status(trailers);
        if code.is_some_and(|code| Grpc::classify(code) != Classification::Success) {
            self.load.count_error();
        }
        let header = match self.call.take() {
            None => self.load.header(),
            Some(own) => {
                let mut report = self.load.report();
                report.replace(&own);
                report.to_header()
            }
        };
        if let Some(header) = header {
            trailers.insert(HEADER, header);
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
