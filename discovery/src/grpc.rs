//! The part of gRPC's wire protocol that a channel needs: status, `grpc-timeout`,
//! `grpc-retry-pushback-ms`, and the length prefix of messages.
//!
//! Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md), "HTTP to gRPC Status Code Mapping" and gRPC
//! proposal A6, all of the gRPC project.

use std::{error::Error, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response::Parts};
use percent_encoding::percent_decode;

use crate::{
    code::Code,
    ejection::Classification,
    error::sources,
    protocol::{Head, InvalidDeadline, Message, Protocol, Pushback},
};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// The status in a block of headers or trailers; a value that is not a code is `Unknown`.
pub(crate) fn status(headers: &HeaderMap) -> Option<Code> {
    let value = headers.get(STATUS)?;
    let number = value.to_str().ok().and_then(|v| v.parse::<usize>().ok());
    Some(
        number
            .and_then(|n| Code::ALL.get(n))
            .copied()
            .unwrap_or(Code::Unknown),
    )
}

/// The meaning of a response without a `grpc-status`, by its HTTP status.
fn from_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// True for an HTTP status by which a server says that it does not have what was asked for. A gateway
/// without an upstream server (502) executed nothing either. Other statuses may come from a proxy
/// behind which the right server is.
fn is_wrong_server(status: StatusCode) -> bool {
    status.is_redirection() || matches!(status.as_u16(), 404 | 405 | 410 | 415 | 421 | 501 | 502)
}

/// The content type of a response that is not gRPC's. One without a content type passes.
fn other_content_type(headers: &HeaderMap) -> Option<&HeaderValue> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let rest = value.as_bytes().strip_prefix(b"application/grpc");
    let is_grpc = rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')));
    (!is_grpc).then_some(value)
}

/// Makes a head that a gRPC client reads as this status.
fn rewrite(parts: &mut Parts, code: Code, message: &str) {
    parts.status = StatusCode::OK;
    parts.headers.insert(STATUS, (code as i32).into());
    if let Ok(message) = message.parse() {
        parts.headers.insert(MESSAGE, message);
    }
}

/// The time that a caller gives, from its `grpc-timeout` header.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, InvalidDeadline> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    parse_timeout(value.as_bytes())
        .map(Some)
        .ok_or_else(|| InvalidDeadline {
            header: "grpc-timeout",
            value: value.clone(),
            expected: "up to 8 digits and one of H M S m u n",
        })
}

/// At most eight digits and a unit.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The header value for `time`, rounded up to three digits (as gRPC's C core does): equal timeouts are
/// equal headers, which HTTP/2 sends as one byte each, and the client is the first to give up.
pub(crate) fn format_timeout(time: Duration) -> HeaderValue {
    const MOST: u64 = 99_999_999;
    // Three thousand years: more than eight digits can express.
    const FAR: u64 = 100_000_000_000_000_000;
    let micros = time
        .as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(time.subsec_nanos().div_ceil(1_000).into())
        .min(FAR);
    let mut step = 1;
    while micros >= 1_000 * step {
        step *= 10;
    }
    let micros = micros.div_ceil(step) * step;
    let (amount, unit) = if micros % 1_000 != 0 {
        // Three digits and not a whole millisecond: below a second.
        (micros, b'u')
    } else if micros / 1_000 <= MOST {
        (micros / 1_000, b'm')
    } else {
        ((micros / 1_000_000).min(MOST), b'S')
    };
    let mut buffer = [0; 9];
    let mut start = buffer.len() - 1;
    buffer[start] = unit;
    let mut rest = amount;
    loop {
        start -= 1;
        // A remainder below ten fits.
        #[allow(clippy::cast_possible_truncation)]
        let digit = (rest % 10) as u8;
        buffer[start] = b'0' + digit;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&buffer[start..]).unwrap_or_else(|_| HeaderValue::from_static("0u"))
}

pub(crate) fn pushback(headers: &HeaderMap) -> Option<Pushback> {
    let value = headers.get(PUSHBACK)?;
    let millis = value.to_str().ok().and_then(|v| v.parse::<u32>().ok());
    Some(millis.map_or(Pushback::Stop, |ms| {
        Pushback::After(Duration::from_millis(ms.into()))
    }))
}

/// gRPC over HTTP/2, as a channel sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grpc;

impl Protocol for Grpc {
    type Message = LengthPrefixed;

    fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, InvalidDeadline> {
        timeout(headers)
    }

    fn set_deadline(headers: &mut HeaderMap, left: Duration) {
        headers.insert(TIMEOUT, format_timeout(left));
    }

    fn set_previous_attempts(headers: &mut HeaderMap, attempts: u32) {
        headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(attempts));
    }

    fn head(parts: &mut Parts) -> Head {
        match status(&parts.headers) {
            Some(Code::Unimplemented) => Head::WrongServer(Code::Unimplemented),
            Some(code) => Head::Status(code),
            None if parts.status != StatusCode::OK => {
                // Most likely a proxy's page. A gRPC client would otherwise try to decode it.
                let (status, code) = (parts.status, from_http(parts.status));
                rewrite(parts, code, &format!("HTTP status {status}"));
                if is_wrong_server(status) {
                    Head::WrongServer(code)
                } else {
                    Head::Status(code)
                }
            }
            None => match other_content_type(&parts.headers) {
                None => Head::Open,
                Some(other) => {
                    // The code that gRPC's mapping has for it.
                    rewrite(parts, Code::Unknown, &format!("content-type {other:?}"));
                    Head::WrongServer(Code::Unknown)
                }
            },
        }
    }

    fn trailers(trailers: &HeaderMap) -> Code {
        status(trailers).unwrap_or(Code::Unknown)
    }

    fn is_timeout(code: Code) -> bool {
        // tonic's server answers CANCELLED.
        matches!(code, Code::Cancelled | Code::DeadlineExceeded)
    }

    fn classify(code: Code) -> Classification {
        match code {
            Code::ResourceExhausted => Classification::Overloaded,
            Code::Unknown
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Classification::Status,
            _ => Classification::Success,
        }
    }

    fn pushback(headers: &HeaderMap) -> Option<Pushback> {
        pushback(headers)
    }

    fn caller_error(error: &(dyn Error + 'static)) -> Code {
        // A generated client fails with a status, also when its caller cancels.
        sources(error)
            .find_map(|error| error.downcast_ref::<tonic::Status>())
            .and_then(|status| Code::ALL.get(status.code() as usize).copied())
            .unwrap_or(Code::Cancelled)
    }

    fn describe(code: Code, headers: &HeaderMap) -> String {
        let message = headers
            .get(MESSAGE)
            .map(|value| percent_decode(value.as_bytes()).decode_utf8_lossy())
            .filter(|message| !message.is_empty());
        match message {
            Some(message) => format!("{code}: {message}"),
            None => code.to_string(),
        }
    }
}

/// A message begins with a flag and its length in four bytes.
const PREFIX: usize = 5;

/// How much of a length-prefixed message has been received.
#[derive(Debug, Default)]
pub(crate) struct LengthPrefixed {
    prefix: [u8; PREFIX],
    len: usize,
}

impl Message for LengthPrefixed {
    fn add(&mut self, data: &[u8]) {
        if self.len < PREFIX {
            let part = &data[..data.len().min(PREFIX - self.len)];
            self.prefix[self.len..self.len + part.len()].copy_from_slice(part);
        }
        self.len += data.len();
    }

    fn len(&self) -> usize {
        self.len
    }

    fn is_whole(&self) -> bool {
        self.announced()
            .is_some_and(|length| self.len - PREFIX >= length)
    }

    fn announced(&self) -> Option<usize> {
        let [_flag, length @ ..] = self.prefix;
        (self.len >= PREFIX).then(|| u32::from_be_bytes(length) as usize)
    }

    fn take(&mut self, data: &[u8]) -> usize {
        let prefix = data.len().min(PREFIX.saturating_sub(self.len));
        self.add(&data[..prefix]);
        let left = self
            .announced()
            .map_or(0, |length| (length + PREFIX).saturating_sub(self.len));
        let message = left.min(data.len() - prefix);
        self.add(&data[prefix..prefix + message]);
        prefix + message
    }

    fn has_next(&self) -> bool {
        self.announced()
            .is_some_and(|length| self.len - PREFIX > length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_timeouts_as_the_protocol_writes_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("500m", Some(Duration::from_millis(500))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("1n", Some(Duration::from_nanos(1))),
            ("", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("1.5S", None),
            ("123456789m", None),
            ("1x", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_timeout_is_read_back_no_shorter_and_close(digits in -9..9_i32, part in 0.0..1.0) {
            let time = Duration::from_secs_f64(10_f64.powi(digits) * part);
            let read = parse_timeout(format_timeout(time).as_bytes()).unwrap();
            if time < Duration::from_secs(99_999_999) {
                prop_assert!(read >= time);
                let more = read.as_secs_f64() - time.as_secs_f64();
                prop_assert!(more <= 1e-6 + 1e-2 * time.as_secs_f64(), "{time:?} became {read:?}");
            }
        }
    }

    #[test]
    fn equal_timeouts_are_equal_headers() {
        for (micros, text) in [
            (0, "0m"),
            (999, "999u"),
            (1_234, "1240u"),
            (166_001, "167m"),
            (166_666, "167m"),
            (499_950, "500m"),
            (999_900, "1000m"),
            (3_600_000_000, "3600000m"),
            (99_900_000_000, "99900000m"),
            (99_900_000_000_000, "99900000S"),
        ] {
            let header = format_timeout(Duration::from_micros(micros));
            assert_eq!(header.to_str().unwrap(), text);
        }
    }

    #[test]
    fn codes_go_by_number() {
        for (number, code) in Code::ALL.iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from(number));
            assert_eq!(status(&headers), Some(*code));
        }
        for value in ["", "17", "-1", "x"] {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from_static(value));
            assert_eq!(status(&headers), Some(Code::Unknown));
        }
    }

    #[test]
    fn a_head_tells_the_wrong_server_from_a_status_and_from_an_answer() {
        let json = "application/json";
        let grpc = "application/grpc";
        for (http, content_type, status, expected) in [
            (200, Some(grpc), None, Head::Open),
            (200, Some("application/grpc+proto"), None, Head::Open),
            (
                200,
                Some("application/grpc;charset=utf-8"),
                None,
                Head::Open,
            ),
            (200, None, None, Head::Open),
            (200, Some(json), None, Head::WrongServer(Code::Unknown)),
            (
                200,
                Some("application/grpc-web"),
                None,
                Head::WrongServer(Code::Unknown),
            ),
            (200, Some(grpc), Some(0), Head::Status(Code::Ok)),
            (200, Some(grpc), Some(5), Head::Status(Code::NotFound)),
            (
                200,
                Some(grpc),
                Some(12),
                Head::WrongServer(Code::Unimplemented),
            ),
            (
                404,
                Some(json),
                None,
                Head::WrongServer(Code::Unimplemented),
            ),
            (502, Some(json), None, Head::WrongServer(Code::Unavailable)),
            (301, None, None, Head::WrongServer(Code::Unknown)),
            (401, Some(json), None, Head::Status(Code::Unauthenticated)),
            (503, Some(json), None, Head::Status(Code::Unavailable)),
            (504, Some(json), None, Head::Status(Code::Unavailable)),
        ] {
            let mut response = http::Response::builder().status(http);
            if let Some(content_type) = content_type {
                response = response.header(header::CONTENT_TYPE, content_type);
            }
            if let Some(status) = status {
                response = response.header(STATUS, HeaderValue::from(status));
            }
            let (mut parts, ()) = response.body(()).unwrap().into_parts();
            let head = Grpc::head(&mut parts);
            assert_eq!(head, expected, "{http} {content_type:?} {status:?}");
            assert_eq!(parts.status, StatusCode::OK);
            let code = self::status(&parts.headers);
            match head {
                Head::Open | Head::Reply(_) => assert_eq!(code, None),
                Head::Status(known) | Head::WrongServer(known) => assert_eq!(code, Some(known)),
            }
        }
    }

    #[test]
    fn a_malformed_pushback_means_stop() {
        for (value, expected) in [
            ("0", Pushback::After(Duration::ZERO)),
            ("250", Pushback::After(Duration::from_millis(250))),
            ("-1", Pushback::Stop),
            ("soon", Pushback::Stop),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PUSHBACK, HeaderValue::from_static(value));
            assert_eq!(pushback(&headers), Some(expected), "{value}");
        }
    }
}
