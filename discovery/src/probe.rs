//! A call of a server's standard health service, `grpc.health.v1.Health/Check`.
//!
//! It probes an ejected endpoint before a real call is sent there, and an endpoint that its registry no
//! longer offers. The request is the empty message, which asks about the server as a whole, so no
//! generated code is needed.

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

/// An extension of the requests made here, by which a factory for another protocol knows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IsProbe;

/// The answer of a server's health service about the server as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Serving,
    /// Any other status of the health protocol.
    NotServing,
    /// The server has no health service.
    NoService,
    /// The call failed, or its answer has another form.
    Unknown,
}

/// Calls the health service once.
pub(crate) async fn health(transport: &dyn Transport) -> Health {
    let mut request = Request::new(RequestBody::whole(Bytes::from_static(EMPTY_MESSAGE)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(CHECK);
    request.extensions_mut().insert(IsProbe);
    request.headers_mut().extend([
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        ),
        (header::TE, HeaderValue::from_static("trailers")),
    ]);
    let Ok(response) = transport.send(request).await else {
        return Health::Unknown;
    };
    if let Some(code) = grpc::status(response.headers()) {
        return without_message(code);
    }
    let mut body = response.into_body();
    let mut message = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Health::Unknown;
        };
        if let Some(data) = frame.data_ref() {
            message.extend_from_slice(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            let code = grpc::status(trailers).unwrap_or(Code::Unknown);
            if code != Code::Ok {
                return without_message(code);
            }
        }
        if message.len() > LIMIT {
            return Health::Unknown;
        }
    }
    if message.len() < EMPTY_MESSAGE.len() {
        return Health::Unknown;
    }
    message.advance(EMPTY_MESSAGE.len());
    if message.starts_with(&SERVING) {
        Health::Serving
    } else {
        // Without the field, the status is 0: UNKNOWN.
        Health::NotServing
    }
}

/// The health that an error status states.
fn without_message(code: Code) -> Health {
    match code {
        Code::Unimplemented => Health::NoService,
        // The health service does not know the server's own name.
        Code::NotFound => Health::NotServing,
        _ => Health::Unknown,
    }
}
