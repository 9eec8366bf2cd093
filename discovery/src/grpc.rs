//! The little of gRPC's wire protocol that retrying needs: status codes, `grpc-timeout`,
//! `grpc-retry-pushback-ms`.
//!
//! Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md), "HTTP to gRPC Status Code Mapping" and gRPC
//! proposal A6, all of the gRPC project.

use std::{fmt, str::FromStr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(crate) const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
pub(crate) const PREVIOUS_ATTEMPTS: HeaderName =
    HeaderName::from_static("grpc-previous-rpc-attempts");

macro_rules! codes {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// A gRPC status code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are gRPC's own")]
        pub enum Code { $($name = $number,)* }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name as gRPC writes it, for example `UNAVAILABLE`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    Ok = 0 "OK",
    Cancelled = 1 "CANCELLED",
    Unknown = 2 "UNKNOWN",
    InvalidArgument = 3 "INVALID_ARGUMENT",
    DeadlineExceeded = 4 "DEADLINE_EXCEEDED",
    NotFound = 5 "NOT_FOUND",
    AlreadyExists = 6 "ALREADY_EXISTS",
    PermissionDenied = 7 "PERMISSION_DENIED",
    ResourceExhausted = 8 "RESOURCE_EXHAUSTED",
    FailedPrecondition = 9 "FAILED_PRECONDITION",
    Aborted = 10 "ABORTED",
    OutOfRange = 11 "OUT_OF_RANGE",
    Unimplemented = 12 "UNIMPLEMENTED",
    Internal = 13 "INTERNAL",
    Unavailable = 14 "UNAVAILABLE",
    DataLoss = 15 "DATA_LOSS",
    Unauthenticated = 16 "UNAUTHENTICATED",
}

impl Code {
    /// The status in a block of headers or trailers; a value that is no code is `Unknown`.
    pub(crate) fn in_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(STATUS)?;
        let number = value.to_str().ok().and_then(|v| v.parse::<usize>().ok());
        Some(
            number
                .and_then(|n| Self::ALL.get(n))
                .copied()
                .unwrap_or(Self::Unknown),
        )
    }

    /// What a response without a `grpc-status` means, by its HTTP status.
    pub(crate) fn from_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// Whether the server, not the request, is what the code blames.
    pub(crate) fn is_server_fault(self) -> bool {
        matches!(
            self,
            Self::Unknown
                | Self::DeadlineExceeded
                | Self::Internal
                | Self::Unavailable
                | Self::DataLoss
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Code {
    type Err = UnknownCode;

    /// Reads a code's name in any letter case, with `-` for `_` where one likes.
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let name = text.trim().replace('-', "_").to_ascii_uppercase();
        Self::ALL
            .iter()
            .find(|code| code.name() == name)
            .copied()
            .ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

/// A text that names no gRPC status code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no gRPC status code; expected a name such as UNAVAILABLE")]
pub struct UnknownCode(String);

/// The time a caller gives, from its `grpc-timeout` header.
///
/// # Errors
///
/// When the header is there and malformed: the value itself.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, HeaderValue> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    parse_timeout(value.as_bytes())
        .map(Some)
        .ok_or_else(|| value.clone())
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
    // Three thousand years, which is more than eight digits can tell.
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

/// What a server says about when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Do not retry. Also what a malformed value means.
    Stop,
    /// Retry after this long.
    After(Duration),
}

pub(crate) fn pushback(headers: &HeaderMap) -> Option<Pushback> {
    let value = headers.get(PUSHBACK)?;
    let millis = value.to_str().ok().and_then(|v| v.parse::<u32>().ok());
    Some(millis.map_or(Pushback::Stop, |ms| {
        Pushback::After(Duration::from_millis(ms.into()))
    }))
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
    fn codes_go_by_number_and_by_name() {
        for (number, code) in Code::ALL.iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from(number));
            assert_eq!(Code::in_headers(&headers), Some(*code));
            assert_eq!(
                code.name().to_lowercase().replace('_', "-").parse(),
                Ok(*code)
            );
        }
        for value in ["", "17", "-1", "x"] {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from_static(value));
            assert_eq!(Code::in_headers(&headers), Some(Code::Unknown));
        }
        assert!("TEAPOT".parse::<Code>().is_err());
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
