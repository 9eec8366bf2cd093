//! The messages, clients and servers of `proto/testing.proto`, and shorthands for messages.

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    dead_code,
    clippy::pedantic
)]
mod generated {
    tonic::include_proto!("grpc.testing");
}

pub(crate) use generated::*;

/// The encoded descriptors, for the reflection service.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/testing.bin"));

/// Sizes of the payloads of the streaming cases, as gRPC's description of them gives them.
pub(crate) const REQUEST_SIZES: [usize; 4] = [27_182, 8, 1_828, 45_904];
/// Sizes of the answers to them.
pub(crate) const RESPONSE_SIZES: [i32; 4] = [31_415, 9, 2_653, 58_979];
/// The size of a large request's payload.
pub(crate) const LARGE_REQUEST: usize = 271_828;
/// The size of a large response's payload.
pub(crate) const LARGE_RESPONSE: i32 = 314_159;

/// A payload of so many zeros.
#[allow(clippy::unnecessary_wraps, reason = "the type of the field")]
pub(crate) fn payload(size: usize) -> Option<Payload> {
    Some(Payload {
        body: vec![0; size],
    })
}

/// The size of a payload; 0 for a missing one.
pub(crate) fn size(payload: Option<&Payload>) -> usize {
    payload.map_or(0, |payload| payload.body.len())
}

/// A request for one large response.
pub(crate) fn large_request() -> SimpleRequest {
    SimpleRequest {
        response_size: LARGE_RESPONSE,
        payload: payload(LARGE_REQUEST),
        ..SimpleRequest::default()
    }
}

/// A request of a stream, for responses of these sizes.
pub(crate) fn stream_request(responses: &[i32], request: usize) -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: responses
            .iter()
            .map(|&size| ResponseParameters {
                size,
                ..ResponseParameters::default()
            })
            .collect(),
        payload: payload(request),
        response_status: None,
    }
}
