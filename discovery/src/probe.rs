//! The standard health service, `grpc.health.v1.Health`, as a client calls it. The messages are small, so
//! no generated code is needed.
//!
//! [`health`] asks a server as a whole once: an ejected endpoint before a real call is sent there, and an
//! endpoint that its registry no longer offers. The watch of an endpoint uses [`request`] and
//! [`is_serving`] too.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::BodyExt as _;

use crate::{
    code::Code,
    connection::{RequestBody, Transport},
    grpc,
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// The method that reports each change of the health.
pub(crate) const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// The value `SERVING` of `HealthCheckResponse.status`.
const SERVING: u64 = 1;
/// The flag and the length before a message.
const PREFIX: usize = 5;
/// Maximum length of a response, in bytes.
pub(crate) const LIMIT: usize = 1024;

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
    let mut request = request(CHECK, "");
    request.extensions_mut().insert(IsProbe);
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
    if message.len() < PREFIX {
        return Health::Unknown;
    }
    message.advance(PREFIX);
    match is_serving(&message) {
        Some(true) => Health::Serving,
        Some(false) => Health::NotServing,
        None => Health::Unknown,
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

/// A request of the health service about a service, or about the server as a whole if the name is empty.
pub(crate) fn request(method: &'static str, service: &str) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::whole(message(service)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(method);
    request.headers_mut().extend([
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        ),
        (header::TE, HeaderValue::from_static("trailers")),
    ]);
    request
}

/// A `HealthCheckRequest`, with its length prefix.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        // Field 1, of a length in bytes.
        field.put_u8(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            #[allow(clippy::cast_possible_truncation, reason = "seven bits")]
            field.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        #[allow(clippy::cast_possible_truncation, reason = "less than 0x80")]
        field.put_u8(length as u8);
        field.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(PREFIX + field.len());
    message.put_u8(0);
    // A name of 4 GiB fits no message.
    message.put_u32(u32::try_from(field.len()).unwrap_or(u32::MAX));
    message.put(field);
    message.freeze()
}

/// True if a `HealthCheckResponse` has the status `SERVING`. `None` if it is malformed.
pub(crate) fn is_serving(mut message: &[u8]) -> Option<bool> {
    // Without the field, the status is 0: UNKNOWN.
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let skipped = match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status == SERVING)
}

/// Takes a number off the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_service_as_protobuf_writes_it() {
        assert_eq!(message("")[..], [0; 5]);
        assert_eq!(message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = message(&"x".repeat(300));
        assert_eq!(long[..9], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02, b'x']);
        assert_eq!(long.len(), PREFIX + 303);
    }

    #[test]
    fn reads_the_status_among_fields_that_it_does_not_know() {
        for (message, expected) in [
            (&[][..], Some(false)),
            (&[8, 1], Some(true)),
            (&[8, 2], Some(false)),
            (&[8, 3], Some(false)),
            // The last one counts.
            (&[8, 2, 8, 1], Some(true)),
            // Fields 2 to 5, of each kind.
            (&[16, 0xff, 1, 26, 2, 8, 9, 8, 1], Some(true)),
            (&[33, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1], Some(true)),
            (&[45, 0, 0, 0, 0, 8, 1], Some(true)),
            (&[8], None),
            (&[8, 0xff], None),
            (&[26, 9, 1], None),
            (&[11], None),
            (&[8, 1, 0xff], None),
        ] {
            assert_eq!(is_serving(message), expected, "{message:?}");
        }
    }
}
