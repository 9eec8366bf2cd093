//! A gRPC service with what every one of them has beside it: the standard health service, and
//! reflection for grpcurl and the like.

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

use crate::cancel_on_shutdown::CancelOnShutdown;

const HEALTH: &str = "grpc.health.v1.Health";

/// What the health service says of a server and its one service.
pub struct Health {
    reporter: HealthReporter,
    service: &'static str,
    /// Dropped to end the streams of reflection.
    _streams: watch::Sender<()>,
}

/// Puts health and reflection beside a service. `descriptors` is the file descriptor set that it was
/// generated from; other services in there are not shown. The service counts as serving.
///
/// # Errors
///
/// When the descriptors cannot be read.
pub async fn routes<S>(service: S, descriptors: &[u8]) -> anyhow::Result<(Health, AxumRouter)>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let (reporter, health_server) = tonic_health::server::health_reporter();
    let (streams, end) = watch::channel(());
    let health = Health {
        reporter,
        service: S::NAME,
        _streams: streams,
    };
    health.set(ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(S::NAME)
            .with_service_name(HEALTH)
    };
    let failed = || format!("cannot offer reflection of {}", S::NAME);
    let routes = Routes::new(service)
        .add_service(health_server)
        .add_service(CancelOnShutdown::new(
            reflection().build_v1().with_context(failed)?,
            end.clone(),
        ))
        // What grpcurl up to 1.8 asks for.
        .add_service(CancelOnShutdown::new(
            reflection().build_v1alpha().with_context(failed)?,
            end,
        ))
        .prepare()
        .into_axum_router();
    Ok((health, routes))
}

impl Health {
    /// Tells health checks that the end has begun.
    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends the streams of those who watch, and of reflection: they would last as long as the drain.
    pub async fn end_streams(mut self) {
        for service in ["", self.service] {
            self.reporter.clear_service_status(service).await;
        }
    }

    /// The empty name stands for the server as a whole.
    async fn set(&self, status: ServingStatus) {
        for service in ["", self.service] {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
