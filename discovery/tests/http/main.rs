//! A channel for plain HTTP, as its operator sees it: by its rules in memory on a paused clock, and with real
//! servers of HTTP/1.0, HTTP/1.1 and HTTP/2.

#![cfg(feature = "http")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod connections;
mod foreign;
mod memory;
mod retry_after;
mod rules;
mod servers;
#[cfg(feature = "service-config")]
mod service_config;
#[cfg(feature = "tls")]
mod tls;

use std::time::Duration;

use bytes::Bytes;
use discovery::{CallError, http::ResponseBody};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::ServiceExt as _;

/// A request with a body that may be empty.
fn request(method: Method, uri: &str, body: &'static str) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(uri);
    builder.body(Full::from(body)).unwrap()
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    request(Method::GET, uri, "")
}

fn post(uri: &str) -> Request<Full<Bytes>> {
    request(Method::POST, uri, "text")
}

async fn send(
    channel: &discovery::http::Channel,
    request: Request<Full<Bytes>>,
) -> Result<Response<ResponseBody>, CallError> {
    channel.clone().oneshot(request).await
}

/// The status and the whole body of the answer.
async fn answer(
    channel: &discovery::http::Channel,
    request: Request<Full<Bytes>>,
) -> (u16, String) {
    let response = send(channel, request).await.unwrap();
    let status = response.status().as_u16();
    (status, text(response).await)
}

async fn text(response: Response<ResponseBody>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The number of instances that are ejected now.
fn ejected(channel: &discovery::http::Channel) -> usize {
    let endpoints = channel.endpoints().into_iter();
    endpoints.filter(|endpoint| endpoint.ejected).count()
}

/// Waits until the condition holds. Fails the test if it does not within 20 seconds.
async fn eventually(condition: impl Fn() -> bool) {
    let limit = Duration::from_secs(20);
    testkit::eventually("the condition", limit, async || condition())
        .await
        .unwrap();
}
