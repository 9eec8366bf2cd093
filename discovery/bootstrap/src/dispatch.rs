//! Hands a gRPC call to the service that its path names.
//!
//! tonic collects services in an axum router, which matches patterns, stores what they matched and wraps both
//! bodies once more: a tenth of the CPU time of a small call. The first segment of a gRPC path is the name of
//! the service, so a comparison of names does. The router still answers everything else.

use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use discovery::BoxError;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::{body::Body, server::NamedService, service::AxumRouter};

type Answer = Result<Response<Body>, Infallible>;

/// A service of any type.
pub(crate) trait Handler: Send + Sync {
    fn handle(&self, request: Request<Body>) -> BoxFuture<'static, Answer>;
}

impl<S> Handler for S
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    fn handle(&self, request: Request<Body>) -> BoxFuture<'static, Answer> {
        let mut service = self.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        })
    }
}

/// Services by their full names.
#[derive(Clone, Default)]
pub(crate) struct ByName(Vec<(&'static str, Arc<dyn Handler>)>);

impl ByName {
    /// Adds a service.
    pub(crate) fn add<S: Handler + NamedService + 'static>(&mut self, service: S) {
        self.0.push((S::NAME, Arc::new(service)));
    }

    /// The service of a path of the form `/package.Service/Method`.
    fn of(&self, path: &str) -> Option<&dyn Handler> {
        let (name, method) = path.strip_prefix('/')?.split_once('/')?;
        let mut all = self.0.iter().filter(|_| !method.is_empty());
        let (_, service) = all.find(|(known, _)| *known == name)?;
        Some(&**service)
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Services by their names, and a router for the calls of others.
#[derive(Clone)]
pub(crate) struct Dispatch {
    services: Arc<ByName>,
    others: AxumRouter,
}

impl Dispatch {
    pub(crate) fn new(services: ByName, others: AxumRouter) -> Self {
        Self {
            services: Arc::new(services),
            others,
        }
    }
}

impl<B> tower_service::Service<Request<B>> for Dispatch
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Answer>;

    /// Always ready: each service is waited for with its call.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(service) = self.services.of(request.uri().path()) {
            return service.handle(request.map(Body::new));
        }
        let answer = self.others.call(request);
        Box::pin(async move { answer.await.map(|answer| answer.map(Body::new)) })
    }
}

#[cfg(test)]
mod tests {
    use tonic::service::Routes;
    use tower_service::Service as _;

    use super::*;

    /// Answers with its name, and is ready at the second look.
    #[derive(Clone)]
    struct Named {
        looks: u32,
    }

    impl NamedService for Named {
        const NAME: &'static str = "pb.Named";
    }

    impl tower_service::Service<Request<Body>> for Named {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Answer>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.looks += 1;
            if self.looks < 2 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: Request<Body>) -> Self::Future {
            assert!(self.looks >= 2, "called before it was ready");
            let mut answer = Response::new(Body::empty());
            answer.headers_mut().insert("by", "named".parse().unwrap());
            std::future::ready(Ok(answer))
        }
    }

    /// The header of the service that answers, or the gRPC status.
    async fn answer(path: &str) -> String {
        let mut services = ByName::default();
        services.add(Named { looks: 0 });
        let others = Routes::default().prepare().into_axum_router();
        let mut dispatch = Dispatch::new(services, others);
        let request = Request::post(path).body(Body::empty()).unwrap();
        let answer = dispatch.call(request).await.unwrap();
        let header = |name| answer.headers().get(name)?.to_str().ok();
        header("by")
            .or_else(|| header("grpc-status"))
            .unwrap()
            .to_owned()
    }

    #[tokio::test]
    async fn a_call_goes_to_the_service_of_its_path_and_others_are_unimplemented() {
        for (path, expected) in [
            ("/pb.Named/Method", "named"),
            ("/pb.Named/", "12"),
            ("/pb.Named", "12"),
            ("/pb.NamedToo/Method", "12"),
            ("/pb.named/Method", "12"),
            ("/", "12"),
        ] {
            assert_eq!(answer(path).await, expected, "{path}");
        }
    }
}
