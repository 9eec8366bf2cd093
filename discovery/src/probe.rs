//! A call of a server's standard health service, `grpc.health.v1.Health/Check`.
//!
//! It probes an ejected endpoint before a real call is sent there. The request is the empty message,
//! which asks about the server as a whole, so no generated code is needed.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, header};
use http_body_util::BodyExt as _;

use crate::{
    code::Code,
    connection::{RequestBody, Transport},
    grpc,
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// A message of length zero: the uncompressed flag and four bytes of length.
const EMPTY_MESSAGE: &[u8] = &[0; 5];
/// Field 1 of `HealthCheckResponse`, a varint, and its value `SERVING`.
const SERVING: [u8; 2] = [0x08, 0x01];
/// Maximum length of a response, in bytes.
const LIMIT: usize = 1024;

/// True if the server reports that it serves, or answers that it has no health service.
pub(crate) async fn health(transport: &dyn Transport) -> bool {
    let mut request = Request::new(RequestBody::whole(Bytes::from_static(EMPTY_MESSAGE)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(CHECK);
    request.headers_mut().extend([
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        ),
        (header::TE, HeaderValue::from_static("trailers")),
    ]);
    let Ok(response) = transport.send(request).await else {
        return false;
    };
    if let Some(code) = grpc::status(response.headers()) {
        return code == Code::Unimplemented;
    }
    let mut body = response.into_body();
    let mut message = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        if let Some(data) = frame.data_ref() {
            message.extend_from_slice(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            let code = grpc::status(trailers).unwrap_or(Code::Unknown);
            if code != Code::Ok {
                return code == Code::Unimplemented;
            }
        }
        if message.len() > LIMIT {
            return false;
        }
    }
    message.len() > EMPTY_MESSAGE.len() && {
        message.advance(EMPTY_MESSAGE.len());
        message.starts_with(&SERVING)
    }
}
