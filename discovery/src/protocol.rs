//! The rules of the protocol that a channel's calls speak: one small trait, so that the engine of
//! `channel/` knows HTTP requests and responses, but no protocol above them.

use std::{error::Error, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, response::Parts};

use crate::{code::Code, connection::RequestBody, ejection::Classification, hash};

/// The rules of one protocol. Implemented by [`Grpc`](crate::grpc::Grpc) and by HTTP's own.
pub(crate) trait Protocol: Send + Sync + 'static {
    /// Recognises the end of a response's first message.
    type Message: Message;

    /// True if a call whose attempts have all failed ends with the server's last answer, if there is one.
    /// False if it ends with an error that reports the attempts.
    const ENDS_WITH_LAST_ANSWER: bool = false;
    /// True if a response is complete without trailers.
    const ENDS_WITHOUT_TRAILERS: bool = false;

    /// True if calls are counted and traced as gRPC's (gRFCs A66 and A72).
    const IS_RPC: bool = true;

    /// The hash that tells methods apart in what is learnt of their answers.
    fn method(_method: &Method, path: &str) -> u64 {
        hash::bytes(path.as_bytes())
    }

    /// True if the request itself says that it may be executed twice.
    fn is_idempotent(_method: &Method, _headers: &HeaderMap) -> bool {
        false
    }

    /// Adds what the connection needs to know of an attempt.
    fn prepare(_request: &mut Request<RequestBody>, _idempotent: bool) {}

    /// The time that the caller of a request gives it.
    fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, InvalidDeadline>;

    /// Writes the time left into a request's headers.
    fn set_deadline(headers: &mut HeaderMap, left: Duration);

    /// Writes the number of earlier attempts into a request's headers.
    fn set_previous_attempts(headers: &mut HeaderMap, attempts: u32);

    /// The meaning of a response's head. A head that does not follow the protocol is rewritten into
    /// one that does.
    fn head(parts: &mut Parts) -> Head;

    /// The status in the trailers of a response.
    fn trailers(trailers: &HeaderMap) -> Code;

    /// True if servers end a call with this status when its deadline has passed.
    fn is_timeout(code: Code) -> bool;

    /// The meaning of a status for the server that sent it.
    fn classify(code: Code) -> Classification;

    /// The server's own wish for the next attempt.
    fn pushback(headers: &HeaderMap) -> Option<Pushback>;

    /// The status of a call whose request the caller ends with this error.
    fn caller_error(error: &(dyn Error + 'static)) -> Code;

    /// A status and the server's message in one line.
    fn describe(code: Code, headers: &HeaderMap) -> String;
}

/// The meaning of a response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A body follows.
    Open,
    /// The response is its head alone, a status.
    Status(Code),
    /// The same from a server that does not have the method, or does not speak the protocol: it
    /// executed nothing.
    WrongServer(Code),
    /// A status with a body of its own.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "HTTP's"))]
    Reply(Reply),
}

/// A response whose status is known with its head, and whose body follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: Code,
    pub(crate) classification: Classification,
    /// True if another attempt may have a better one.
    pub(crate) is_failure: bool,
    pub(crate) pushback: Option<Pushback>,
    /// The length of the body, if the head states it.
    pub(crate) length: Option<u64>,
}

/// A deadline header that does not follow the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {header} {value:?}: expected {expected}")]
pub struct InvalidDeadline {
    pub(crate) header: &'static str,
    pub(crate) value: HeaderValue,
    pub(crate) expected: &'static str,
}

/// How much of a message has been received.
pub(crate) trait Message: Default + Send + Unpin + 'static {
    /// Counts received bytes.
    fn add(&mut self, data: &[u8]);

    /// Bytes received.
    fn len(&self) -> usize;

    /// True once the message is complete.
    fn is_whole(&self) -> bool;

    /// The length of the message without its prefix, once it is known.
    fn announced(&self) -> Option<usize>;

    /// Adds data up to the end of the message. Returns how much of it was added.
    fn take(&mut self, data: &[u8]) -> usize;

    /// True if bytes of another message follow the complete one.
    fn has_next(&self) -> bool;
}

/// A server's own wish for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// No retry. A malformed value means the same (gRFC A6).
    Stop,
    /// A retry after this long.
    After(Duration),
    /// A retry at another instance, or none.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "HTTP's"))]
    Elsewhere,
}
