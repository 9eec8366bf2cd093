//! Calls a plain HTTP service: two axum servers, of which one is in maintenance.
//!
//! ```console
//! $ cargo run -p discovery --features http --example http
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::{net::SocketAddr, time::Duration};

use axum::{Router, extract::Path, http::StatusCode, response::IntoResponse as _, routing};
use bytes::Bytes;
use discovery::{CallOptions, ServedBy, http::Channel};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

/// A server that answers `GET /orders/ID`, or 503 and `Retry-After`.
async fn start(works: bool) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let order = async move |Path(id): Path<String>| {
        if works {
            format!("order {id}").into_response()
        } else {
            let headers = [("retry-after", "5")];
            (StatusCode::SERVICE_UNAVAILABLE, headers, "maintenance").into_response()
        }
    };
    let app = Router::new().route("/orders/{id}", routing::get(order));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (one, two) = (start(true).await?, start(false).await?);

    // In production the URL names a registry, such as consul://localhost:8500.
    let channel = Channel::builder(format!("static://{one},{two}"), "orders").build()?;
    channel.wait_for(|status| status.ready == 2).await?;

    for id in 1..=4 {
        let mut request = Request::get(format!("/orders/{id}")).body(Empty::<Bytes>::new())?;
        // Options of one request; its method says that it may be repeated.
        let options = CallOptions::new().with_timeout(Duration::from_secs(1));
        request.extensions_mut().insert(options);
        let response = channel.clone().oneshot(request).await?;
        let ServedBy(instance) = response
            .extensions()
            .get()
            .cloned()
            .ok_or("every response names its instance")?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!("{status}: {} by {instance}", String::from_utf8_lossy(&body));
    }
    for endpoint in channel.endpoints() {
        println!("{} received {}", endpoint.instance, endpoint.calls.ended);
    }
    Ok(())
}
