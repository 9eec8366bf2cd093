//! The health of an instance without gRPC's health service: the engine asks as gRPC does, and this asks by
//! HTTP and answers as that service would.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};

use super::rules::Rules;
use crate::connection::{RequestBody, SendError, Transport, TransportBody};

/// `HealthCheckResponse` of `grpc.health.v1` with the status `SERVING`, and with `NOT_SERVING`.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x01];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x02];

/// Asks an instance once. `origin` has the scheme and the authority, if these are set.
pub(super) fn health(
    transport: Arc<dyn Transport>,
    rules: Arc<Rules>,
    origin: &Uri,
) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
    let mut uri = origin.clone().into_parts();
    Box::pin(async move {
        let mut request = Request::new(RequestBody::whole(Bytes::new()));
        let path = rules.health_path();
        if path.is_none() {
            *request.method_mut() = Method::HEAD;
        }
        let path_and_query = path.unwrap_or("/").parse::<PathAndQuery>();
        uri.path_and_query = Some(path_and_query.map_err(SendError::unprocessed)?);
        *request.uri_mut() = Uri::from_parts(uri).map_err(SendError::unprocessed)?;
        let agent = concat!("discovery/", env!("CARGO_PKG_VERSION"));
        let agent = HeaderValue::from_static(agent);
        request.headers_mut().insert(header::USER_AGENT, agent);
        let status = transport.send(request).await?.status();
        let serves = match path {
            Some(_) => status.is_success(),
            None => !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED,
        };
        let message = if serves { SERVING } else { NOT_SERVING };
        let body = Full::new(Bytes::from_static(message)).map_err(|never| match never {});
        Ok(Response::new(body.boxed_unsync()))
    })
}
