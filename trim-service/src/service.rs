//! `pb.Trim`: removes every space (U+0020) from a text and nothing else.

use proto::{TrimRequest, TrimResponse, trim_server::Trim};
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::fault::{self, Fault};

/// The service, shared by all connections.
#[derive(Debug)]
pub(crate) struct TrimService {
    faults: Vec<Fault>,
}

impl TrimService {
    pub(crate) fn new(faults: Vec<Fault>) -> Self {
        Self { faults }
    }
}

#[tonic::async_trait]
impl Trim for TrimService {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        fault::inject(&self.faults).await?;
        let s = request.into_inner().s.replace(' ', "");
        debug!(bytes = s.len(), "trimmed");
        Ok(Response::new(TrimResponse { s }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_out_spaces_and_nothing_else() {
        let service = TrimService::new(Vec::new());
        for (given, expected) in [
            ("", ""),
            ("   ", ""),
            (" a b ", "ab"),
            ("a\tb\nc", "a\tb\nc"),
            ("a\u{a0}b\u{3000}c d", "a\u{a0}b\u{3000}cd"),
        ] {
            let request = Request::new(TrimRequest { s: given.into() });
            let response = service.trim_space(request).await.unwrap();
            assert_eq!(response.into_inner().s, expected);
        }
    }
}
