//! Echoes custom metadata in the response's headers and trailers. tonic's handlers cannot add trailers
//! to an answer that is not an error.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

use crate::cases::metadata::{INITIAL, TRAILING};

const INITIAL_NAME: HeaderName = HeaderName::from_static(INITIAL);
const TRAILING_NAME: HeaderName = HeaderName::from_static(TRAILING);

/// Adds the metadata of each request to its response.
#[derive(Clone, Debug)]
pub(crate) struct Echo<S>(pub(crate) S);

impl<S: NamedService> NamedService for Echo<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Echo<S>
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
        let headers = request.headers();
        let initial = headers.get(INITIAL_NAME).cloned();
        let trailing = headers.get(TRAILING_NAME).cloned();
        let response = self.0.call(request);
        Box::pin(async move { Ok(add(response.await?, initial, trailing)) })
    }
}

fn add(
    mut response: Response<Body>,
    initial: Option<HeaderValue>,
    trailing: Option<HeaderValue>,
) -> Response<Body> {
    if let Some(value) = initial {
        response.headers_mut().insert(INITIAL_NAME, value);
    }
    let Some(value) = trailing else {
        return response;
    };
    response.map(|body| {
        Body::new(body.map_frame(move |mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                trailers.insert(TRAILING_NAME, value.clone());
            }
            frame
        }))
    })
}
