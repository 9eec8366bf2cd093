//! The contract of `pb.Trim`.

use proto::{TrimRequest, TrimResponse, trim_server::Trim};
use tonic::{Request, Response, Status};

/// Removes every space from a text, as the trim service does.
#[derive(Clone, Copy, Debug)]
pub struct Trimmer;

#[tonic::async_trait]
impl Trim for Trimmer {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        let s = request.into_inner().s.replace(' ', "");
        Ok(Response::new(TrimResponse { s }))
    }
}
