//! gRPC services with the standard health service and reflection.

use std::convert::Infallible;

use anyhow::Context as _;
use http::{Request, Response};
use tokio::sync::watch;
use tonic::{
    body::Body,
    server::NamedService,
    service::{AxumRouter, Routes},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::Builder as ReflectionBuilder;

use crate::cancel_on_shutdown::CancelOnShutdown;

const HEALTH: &str = "grpc.health.v1.Health";

/// The gRPC services of one listener. [`Server::grpc`](crate::Server::grpc) adds the standard health
/// service and reflection.
///
/// ```
/// use bootstrap::Services;
/// # use proto::{TrimRequest, TrimResponse, trim_server::{Trim, TrimServer}};
/// # use tonic::{Request, Response, Status};
/// # struct MyTrim;
/// # #[tonic::async_trait]
/// # impl Trim for MyTrim {
/// #     async fn trim_space(&self, request: Request<TrimRequest>) -> Result<Response<TrimResponse>, Status> {
/// #         Ok(Response::new(TrimResponse { s: request.into_inner().s }))
/// #     }
/// # }
///
/// let services = Services::new(proto::FILE_DESCRIPTOR_SET).add(TrimServer::new(MyTrim));
/// assert_eq!(services.names(), ["pb.Trim"]);
/// ```
#[derive(Clone, Debug)]
pub struct Services {
    routes: Routes,
    names: Vec<String>,
    descriptors: &'static [u8],
}

impl Services {
    /// No services yet. `descriptors` is the encoded file descriptor set that they are generated
    /// from. Reflection shows the services that are added, and no others of the set.
    #[must_use]
    pub fn new(descriptors: &'static [u8]) -> Self {
        Self::from_routes(Routes::default(), [""; 0], descriptors)
    }

    /// Services in tonic's own collection. `names` are their full names, such as `pb.Trim`: the
    /// collection does not tell them.
    #[must_use]
    pub fn from_routes<N: Into<String>>(
        routes: Routes,
        names: impl IntoIterator<Item = N>,
        descriptors: &'static [u8],
    ) -> Self {
        Self {
            routes,
            names: names.into_iter().map(Into::into).collect(),
            descriptors,
        }
    }

    /// Adds a service.
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "the name that tonic's own builders use"
    )]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: tower_service::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes = self.routes.add_service(service);
        self.names.push(S::NAME.to_owned());
        self
    }

    /// The full names of the services.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The services with health and reflection. All of them are reported as serving.
    pub(crate) async fn into_router(self) -> anyhow::Result<(Health, AxumRouter)> {
        let (reporter, health_server) = tonic_health::server::health_reporter();
        let (streams, end) = watch::channel(());
        let names = self.names.clone();
        let reflection = || {
            let builder = ReflectionBuilder::configure()
                .register_encoded_file_descriptor_set(self.descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            let names = self.names.iter().map(String::as_str).chain([HEALTH]);
            names.fold(builder, ReflectionBuilder::with_service_name)
        };
        let failed = || format!("cannot offer reflection of {}", self.names.join(", "));
        let v1 = reflection().build_v1().with_context(failed)?;
        // grpcurl up to 1.8 uses the older version.
        let v1alpha = reflection().build_v1alpha().with_context(failed)?;
        let router = self
            .routes
            .add_service(health_server)
            .add_service(CancelOnShutdown::new(v1, end.clone()))
            .add_service(CancelOnShutdown::new(v1alpha, end))
            .prepare()
            .into_axum_router();
        let health = Health {
            reporter,
            names,
            _streams: streams,
        };
        health.set(ServingStatus::Serving).await;
        Ok((health, router))
    }
}

/// The health that a server reports of itself and its services.
pub(crate) struct Health {
    reporter: HealthReporter,
    names: Vec<String>,
    /// Dropped to end the streams of reflection.
    _streams: watch::Sender<()>,
}

impl Health {
    /// Reports all services as not serving.
    pub(crate) async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends the health watches and reflection streams, which would last as long as the drain.
    pub(crate) async fn end_streams(mut self) {
        for name in self.names.iter().map(String::as_str).chain([""]) {
            self.reporter.clear_service_status(name).await;
        }
    }

    /// The empty name stands for the server as a whole.
    async fn set(&self, status: ServingStatus) {
        for name in self.names.iter().map(String::as_str).chain([""]) {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
