//! HTTP as a channel sees it.

use std::{error::Error, time::Duration};

use http::{HeaderMap, HeaderName, Method, Request, StatusCode, response::Parts};

use super::{operation, rules::Rules};
use crate::{
    code::Code,
    connection::{Repeatable, RequestBody},
    ejection::Classification,
    protocol::{Head, InvalidDeadline, Message, Protocol, Pushback, Reply},
    retry::{CallError, CallErrorKind},
};

/// The draft of the IETF's HTTPAPI group, and what payment services use.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Codes that all requests are repeated after: the server has refused to execute them.
pub(super) const CODES: &[Code] = &[Code::ResourceExhausted];

/// The status that a proxy answers with, if its own call has ended with this error.
#[must_use]
pub fn status_for(error: &CallError) -> StatusCode {
    match error.kind {
        CallErrorKind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        CallErrorKind::ResponseInterrupted => StatusCode::BAD_GATEWAY,
        CallErrorKind::InvalidRequest | CallErrorKind::RequestFailed => StatusCode::BAD_REQUEST,
        CallErrorKind::MessageTooLong => StatusCode::PAYLOAD_TOO_LARGE,
        _ if error.code == Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// HTTP/1.1 and HTTP/2 without a protocol above them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Http;

impl Protocol for Http {
    type Message = Body;

    const IS_RPC: bool = false;
    const ENDS_WITH_LAST_ANSWER: bool = true;
    const ENDS_WITHOUT_TRAILERS: bool = true;

    fn method(method: &Method, path: &str) -> u64 {
        operation::hash(method, path)
    }

    fn is_idempotent(method: &Method, headers: &HeaderMap) -> bool {
        method.is_idempotent() || headers.contains_key(IDEMPOTENCY_KEY)
    }

    fn prepare(request: &mut Request<RequestBody>, idempotent: bool) {
        if idempotent {
            request.extensions_mut().insert(Repeatable);
        }
    }

    /// No header carries the caller's deadline.
    fn timeout(_: &HeaderMap) -> Result<Option<Duration>, InvalidDeadline> {
        Ok(None)
    }

    fn set_deadline(_: &mut HeaderMap, _: Duration) {}

    fn set_previous_attempts(_: &mut HeaderMap, _: u32) {}

    fn head(parts: &mut Parts) -> Head {
        // Set by the transport, which knows the channel's rules.
        let reply = parts.extensions.remove::<Reply>();
        Head::Reply(reply.unwrap_or_else(|| Rules::default().reply(parts, false)))
    }

    fn trailers(_: &HeaderMap) -> Code {
        Code::Ok
    }

    fn is_timeout(_: Code) -> bool {
        false
    }

    fn classify(_: Code) -> Classification {
        Classification::Success
    }

    fn pushback(_: &HeaderMap) -> Option<Pushback> {
        None
    }

    fn caller_error(_: &(dyn Error + 'static)) -> Code {
        Code::Cancelled
    }

    fn describe(code: Code, _: &HeaderMap) -> String {
        code.to_string()
    }
}

/// A body, which is one message of any length.
#[derive(Debug, Default)]
pub(super) struct Body(usize);

impl Message for Body {
    fn add(&mut self, data: &[u8]) {
        self.0 += data.len();
    }

    fn len(&self) -> usize {
        self.0
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn announced(&self) -> Option<usize> {
        None
    }

    fn take(&mut self, data: &[u8]) -> usize {
        self.add(data);
        data.len()
    }

    fn has_next(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_methods_of_rfc_9110_and_requests_with_a_key_are_idempotent() {
        let key = HeaderMap::from_iter([(IDEMPOTENCY_KEY, "7".parse().unwrap())]);
        for (method, idempotent) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::OPTIONS, true),
            (Method::TRACE, true),
            (Method::PUT, true),
            (Method::DELETE, true),
            (Method::POST, false),
            (Method::PATCH, false),
            (Method::CONNECT, false),
        ] {
            let seen = Http::is_idempotent(&method, &HeaderMap::new());
            assert_eq!(seen, idempotent, "{method}");
            assert!(Http::is_idempotent(&method, &key), "{method}");
        }
    }
}
