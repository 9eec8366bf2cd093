//! `pb.Add` over gRPC, with the standard health service and reflection.

use std::{sync::Arc, time::Instant};

use bootstrap::{Services, compressed};
use discovery::Deadline;
use proto::{
    ConcatRequest, ConcatResponse, SumRequest, SumResponse,
    add_server::{Add, AddServer},
};
use tonic::{Code, Request, Response, Status};

use crate::{
    caller::keep,
    metrics,
    service::{self, AddService},
};

/// Response metadata, and header on HTTP: the instances that served the call.
pub(crate) const INSTANCE: &str = "x-trim-instance";

/// The gRPC services.
pub(crate) fn services(service: Arc<AddService>, max_body: usize) -> Services {
    let add = compressed!(AddServer::new(Grpc(service)).max_decoding_message_size(max_body));
    Services::new(proto::FILE_DESCRIPTOR_SET).add(add)
}

pub(crate) struct Grpc(Arc<AddService>);

#[tonic::async_trait]
impl Add for Grpc {
    async fn sum(&self, request: Request<SumRequest>) -> Result<Response<SumResponse>, Status> {
        measured("Sum", async {
            self.0.admit()?;
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
            // `bootstrap` reads it from the headers, and refuses a malformed one.
            let deadline = request.extensions().get::<Deadline>().copied();
            let caller = self.0.caller(request.metadata().as_ref(), deadline);
            let ConcatRequest { a, b } = request.into_inner();
            let joined = keep(caller.deadline, self.0.concat(a, b, caller)).await?;
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
            // Registries accept any ID. One that is not a valid header value is left out.
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
