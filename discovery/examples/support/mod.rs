//! A trim service for the examples, on a free port of the loopback interface.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::net::SocketAddr;

use proto::{
    TrimRequest, TrimResponse,
    trim_server::{Trim, TrimServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, codec::CompressionEncoding, transport::Server};

/// Removes spaces. A text that consists of spaces only is refused.
pub(crate) struct Trimmer;

#[tonic::async_trait]
impl Trim for Trimmer {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        let s = request.into_inner().s.replace(' ', "");
        if s.is_empty() {
            return Err(Status::unavailable("nothing is left of the text"));
        }
        Ok(Response::new(TrimResponse { s }))
    }
}

/// Starts a server; it ends with the process.
pub(crate) async fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let trim = TrimServer::new(Trimmer)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    tokio::spawn(
        Server::builder()
            .add_service(trim)
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    Ok(address)
}
