//! Puts an interceptor, tower layers and gzip around a channel, and hides its type behind a box.
//!
//! ```console
//! $ cargo run -p discovery --example layers
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod support;

use discovery::{Channel, ResponseBody};
use http::{Request, Response};
use proto::{TrimRequest, trim_client::TrimClient};
use tonic::{Status, codec::CompressionEncoding};
use tower::{ServiceBuilder, ServiceExt as _, util::BoxCloneService};

type BoxChannel = BoxCloneService<Request<tonic::body::Body>, Response<ResponseBody>, Status>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = format!("static://{}", support::start().await?);
    let channel = Channel::builder(url, "trim_service").build()?;

    // An interceptor adds a token to every call.
    let token = |mut request: tonic::Request<()>| {
        let value = "Bearer secret".parse();
        let value = value.map_err(|_| Status::internal("the token is not valid metadata"))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    };
    let mut client = TrimClient::with_interceptor(channel.clone(), token)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = client.trim_space(TrimRequest { s: " a b ".into() });
    println!(
        "with an interceptor and gzip: {:?}",
        answer.await?.into_inner().s
    );

    // Layers see every call once, before retries; a box keeps the client's type short.
    let layered: BoxChannel = ServiceBuilder::new()
        .concurrency_limit(64)
        .map_request(|request: Request<tonic::body::Body>| {
            println!("calling {}", request.uri().path());
            request
        })
        .service(channel)
        .boxed_clone();
    let mut client = TrimClient::new(layered);
    let answer = client.trim_space(TrimRequest { s: " c d ".into() });
    println!("with layers: {:?}", answer.await?.into_inner().s);
    Ok(())
}
