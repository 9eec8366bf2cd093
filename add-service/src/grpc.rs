//! `pb.Add` over gRPC, with the standard health service and reflection.

use std::{sync::Arc, time::Instant};

use anyhow::Context as _;
use proto::{
    ConcatRequest, ConcatResponse, SumRequest, SumResponse,
    add_server::{Add, AddServer},
};
use tonic::{Code, Request, Response, Status, server::NamedService as _};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    deadline, metrics,
    service::{self, AddService},
};

/// Response metadata, and header on HTTP: the instances that served the call.
pub(crate) const INSTANCE: &str = "x-trim-instance";

/// All services, as the server takes them.
pub(crate) async fn routes(
    service: Arc<AddService>,
    max_body: usize,
) -> anyhow::Result<(HealthReporter, axum::Router)> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<AddServer<Grpc>>().await;
    let add = AddServer::new(Grpc(service)).max_decoding_message_size(max_body);
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The descriptors name the other service as well, which this one does not serve.
            .with_service_name("pb.Add")
            .with_service_name("grpc.health.v1.Health")
    };
    let failed = "cannot offer reflection";
    let routes = tonic::service::Routes::new(add)
        .add_service(health)
        .add_service(descriptors().build_v1().context(failed)?)
        // What grpcurl up to 1.8 asks for.
        .add_service(descriptors().build_v1alpha().context(failed)?)
        .prepare()
        .into_axum_router();
    Ok((reporter, routes))
}

/// Tells health checks that the end has begun.
pub(crate) async fn not_serving(reporter: &HealthReporter) {
    reporter.set_not_serving::<AddServer<Grpc>>().await;
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
}

/// Ends the streams of those who watch the health of a service: they would last the whole drain.
pub(crate) async fn end_watches(mut reporter: HealthReporter) {
    for service in ["", AddServer::<Grpc>::NAME] {
        reporter.clear_service_status(service).await;
    }
}

pub(crate) struct Grpc(Arc<AddService>);

#[tonic::async_trait]
impl Add for Grpc {
    async fn sum(&self, request: Request<SumRequest>) -> Result<Response<SumResponse>, Status> {
        measured("Sum", async {
            self.0.admit()?;
            deadline::of(request.metadata().as_ref())?;
            let SumRequest { a, b } = request.into_inner();
            Ok(Response::new(match service::sum(a, b) {
                Ok(v) => SumResponse {
                    v,
                    err: String::new(),
                },
                Err(error) => SumResponse {
                    v: 0,
                    err: error.to_string(),
                },
            }))
        })
        .await
    }

    async fn concat(
        &self,
        request: Request<ConcatRequest>,
    ) -> Result<Response<ConcatResponse>, Status> {
        measured("Concat", async {
            self.0.admit()?;
            let deadline = deadline::of(request.metadata().as_ref())?;
            let ConcatRequest { a, b } = request.into_inner();
            let joined = deadline::keep(deadline, self.0.concat(a, b, deadline)).await?;
            let mut response = Response::new(match joined.result {
                Ok(v) => ConcatResponse {
                    v,
                    err: String::new(),
                },
                Err(error) => ConcatResponse {
                    v: String::new(),
                    err: error.to_string(),
                },
            });
            // An ID that is no header value is one that nobody can be shown.
            if let Ok(instances) = joined.instances.parse() {
                response.metadata_mut().insert(INSTANCE, instances);
            }
            Ok(response)
        })
        .await
    }
}

async fn measured<T>(
    method: &'static str,
    work: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    let begun = Instant::now();
    let result = work.await;
    let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
    metrics::grpc(method, code, begun.elapsed());
    result
}
