//! gRPC responses in memory, for transports without sockets.

use bytes::Bytes;
use discovery::{BoxError, connection::TransportBody};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};

/// A response with one message, given with its five-byte prefix, and status `OK`.
#[must_use]
pub fn grpc_message(message: &'static [u8]) -> Response<TransportBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames: [Result<_, BoxError>; 2] = [
        Ok(Frame::data(Bytes::from_static(message))),
        Ok(Frame::trailers(trailers)),
    ];
    response(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
}

/// A response without a message, with its status code in the headers (Trailers-Only).
#[must_use]
pub fn grpc_status(code: u16) -> Response<TransportBody> {
    let body = Empty::new().map_err(BoxError::from).boxed_unsync();
    let mut response = response(body);
    response.headers_mut().insert("grpc-status", code.into());
    response
}

fn response(body: TransportBody) -> Response<TransportBody> {
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", content_type);
    response
}
