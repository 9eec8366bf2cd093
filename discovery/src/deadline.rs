//! The deadline of a call as one typed value, from the incoming request to every attempt.
//!
//! A server reads it once from the request it received and puts it into the extensions of the
//! requests it sends: the time is parsed once, and time already spent is not given a second time. A
//! request with both a deadline and a `grpc-timeout` header has the earlier of the two.

use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::{grpc, protocol::InvalidDeadline};

/// Longer than any call; a deadline further away than this is kept as this.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);

/// The time by which a call must have ended.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use discovery::Deadline;
/// # let incoming = http::HeaderMap::new();
///
/// // What the caller of this server gave, or a limit of our own.
/// let deadline = Deadline::from_headers(&incoming)
///     .unwrap_or_default()
///     .unwrap_or(Deadline::after(std::time::Duration::from_secs(1)));
/// let mut request = tonic::Request::new("message");
/// request.extensions_mut().insert(deadline);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline `time` from now, at most thirty years.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self::of(tokio::time::Instant::now(), time)
    }

    /// A deadline at `instant`, by the clock of the runtime.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    pub(crate) fn of(now: tokio::time::Instant, time: Duration) -> Self {
        Self(now.into_std() + time.min(FOREVER))
    }

    /// The deadline that the caller of this server gave, counted from now.
    ///
    /// # Errors
    ///
    /// If `grpc-timeout` is present and malformed.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, InvalidDeadline> {
        Ok(grpc::timeout(headers)?.map(Self::after))
    }

    /// The instant at which the time is over.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timeout_becomes_an_instant_and_a_far_one_does_not_overflow() {
        let mut headers = HeaderMap::new();
        assert_eq!(Deadline::from_headers(&headers), Ok(None));
        headers.insert(grpc::TIMEOUT, HeaderValue::from_static("250m"));
        let expected = Instant::now() + Duration::from_millis(250);
        assert_eq!(
            Deadline::from_headers(&headers),
            Ok(Some(Deadline::at(expected.into_std())))
        );
        headers.insert(grpc::TIMEOUT, HeaderValue::from_static("99999999H"));
        let far = Deadline::from_headers(&headers).unwrap().unwrap();
        assert_eq!(far.instant() - Instant::now().into_std(), FOREVER);
    }

    #[test]
    fn a_malformed_timeout_is_named() {
        let mut headers = HeaderMap::new();
        headers.insert(grpc::TIMEOUT, HeaderValue::from_static("-1S"));
        let error = Deadline::from_headers(&headers).unwrap_err().to_string();
        assert!(
            error.contains("\"-1S\"") && error.contains("8 digits"),
            "{error}"
        );
    }
}
