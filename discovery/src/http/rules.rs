//! The rules of HTTP that an application may change, and the meaning of a response by them.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header, response::Parts, uri::PathAndQuery};

use super::retry_after::retry_after;
use crate::{
    code::Code,
    ejection::Classification,
    error::InvalidSetting,
    protocol::{Pushback, Reply},
};

/// The rules of an HTTP channel, for [`ChannelBuilder::rules`](super::ChannelBuilder::rules).
///
/// ```
/// use std::time::Duration;
/// use discovery::http::Rules;
/// use http::StatusCode;
///
/// let rules = Rules::new()
///     .with_retry_statuses([StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE])
///     .with_max_retry_after(Duration::from_secs(5))
///     .with_health_path("/healthz");
/// assert!(rules.validate().is_ok());
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Rules {
    retry_statuses: BTreeSet<StatusCode>,
    max_retry_after: Duration,
    health_path: Option<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            retry_statuses: BTreeSet::from([
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ]),
            max_retry_after: Duration::from_secs(30),
            health_path: None,
        }
    }
}

impl Rules {
    /// The default rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Statuses after which another attempt of an idempotent request follows. Only those from 400 on can be
    /// failures. Default: 502, 503 and 504.
    pub fn with_retry_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.retry_statuses = statuses.into_iter().collect();
        self
    }

    /// The longest time for which an instance gets no requests because of its `Retry-After` in a response
    /// 429 or 503; zero takes no notice of that header. An instance whose time is not over gets requests
    /// only if all others ask for none either. Default: 30 s.
    pub fn with_max_retry_after(mut self, time: Duration) -> Self {
        self.max_retry_after = time;
        self
    }

    /// The path that is asked (GET) before an ejected instance gets calls again, and while an instance is
    /// kept that its registry no longer offers: a status 2xx means that it serves. Default: none; then
    /// `HEAD /` must be answered by a status below 500, or 501.
    pub fn with_health_path(mut self, path: impl Into<String>) -> Self {
        self.health_path = Some(path.into());
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let is_failure = |status: &&StatusCode| status.as_u16() >= 400;
        if let Some(status) = self.retry_statuses.iter().find(|it| !is_failure(it)) {
            return Err(InvalidSetting::new(
                "retry_statuses",
                status.as_str(),
                "only a status from 400 on can be a failure",
            ));
        }
        if let Some(path) = &self.health_path
            && (!path.starts_with('/') || path.parse::<PathAndQuery>().is_err())
        {
            return Err(InvalidSetting::new(
                "health_path",
                format!("{path:?}"),
                "expected a path such as /health",
            ));
        }
        Ok(())
    }

    pub(super) fn health_path(&self) -> Option<&str> {
        self.health_path.as_deref()
    }

    /// The time for which this response asks for no requests.
    pub(super) fn left_out(&self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        let may_ask = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        if !may_ask || self.max_retry_after.is_zero() {
            return None;
        }
        let asked = retry_after(headers, SystemTime::now())?;
        Some(asked.min(self.max_retry_after))
    }

    /// The meaning of a response. `left_out` is true if it asks for no requests for a time.
    pub(super) fn reply(&self, parts: &Parts, left_out: bool) -> Reply {
        let status = parts.status;
        let in_list = self.retry_statuses.contains(&status);
        // A server that limits requests has refused this one (RFC 6585, section 4).
        let refused = status == StatusCode::TOO_MANY_REQUESTS;
        let is_failure = in_list || left_out && refused;
        let classification = if left_out || refused {
            Classification::Overloaded
        } else if blames_the_server(status) {
            Classification::Status
        } else {
            Classification::Success
        };
        let length = parts.headers.get(header::CONTENT_LENGTH);
        Reply {
            code: code_of(status),
            classification,
            is_failure,
            pushback: left_out.then_some(Pushback::Elsewhere),
            length: length
                .and_then(|length| length.to_str().ok())
                .and_then(|length| length.parse().ok()),
        }
    }
}

/// True for 5xx, except for those that say what the server does not have.
fn blames_the_server(status: StatusCode) -> bool {
    status.is_server_error()
        && !matches!(
            status,
            StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED
        )
}

/// The code that stands for a status, in [`CallError`](crate::CallError) and metrics.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        ..400 => Code::Ok,
        401 | 407 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 | 410 => Code::NotFound,
        409 => Code::Aborted,
        412 | 428 => Code::FailedPrecondition,
        416 => Code::OutOfRange,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        405 | 501 | 505 => Code::Unimplemented,
        400..=499 => Code::InvalidArgument,
        502..=504 => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn reply(rules: &Rules, status: u16, retry_after: Option<&str>) -> (Reply, Option<Duration>) {
        let mut response = Response::builder().status(status);
        if let Some(time) = retry_after {
            response = response.header(header::RETRY_AFTER, time);
        }
        let (parts, ()) = response.body(()).unwrap().into_parts();
        let left_out = rules.left_out(parts.status, &parts.headers);
        (rules.reply(&parts, left_out.is_some()), left_out)
    }

    #[test]
    fn a_status_says_what_is_repeated_and_what_counts_against_the_server() {
        use Classification::{Overloaded, Status, Success};
        for (status, retry_after, code, is_failure, classification) in [
            (200, None, Code::Ok, false, Success),
            (304, None, Code::Ok, false, Success),
            (404, None, Code::NotFound, false, Success),
            (429, None, Code::ResourceExhausted, false, Overloaded),
            (429, Some("1"), Code::ResourceExhausted, true, Overloaded),
            (500, None, Code::Internal, false, Status),
            (500, Some("1"), Code::Internal, false, Status),
            (501, None, Code::Unimplemented, false, Success),
            (502, None, Code::Unavailable, true, Status),
            (503, None, Code::Unavailable, true, Status),
            (503, Some("1"), Code::Unavailable, true, Overloaded),
            (504, None, Code::Unavailable, true, Status),
        ] {
            let (reply, _) = reply(&Rules::new(), status, retry_after);
            let seen = (reply.code, reply.is_failure, reply.classification);
            assert_eq!(seen, (code, is_failure, classification), "{status}");
        }
    }

    #[test]
    fn the_time_that_a_server_asks_for_is_bounded_and_can_be_turned_off() {
        let rules = Rules::new().with_max_retry_after(Duration::from_secs(5));
        let (asks, time) = reply(&rules, 503, Some("3600"));
        assert_eq!(asks.pushback, Some(Pushback::Elsewhere));
        assert_eq!(time, Some(Duration::from_secs(5)));
        let off = Rules::new().with_max_retry_after(Duration::ZERO);
        let (asks, time) = reply(&off, 503, Some("3600"));
        assert_eq!((asks.pushback, time), (None, None));
    }

    #[test]
    fn a_rule_that_cannot_work_is_named_with_its_value() {
        for (rules, message) in [
            (
                Rules::new().with_retry_statuses([StatusCode::OK]),
                "retry_statuses is 200: only a status from 400 on",
            ),
            (
                Rules::new().with_health_path("health"),
                "health_path is \"health\": expected a path",
            ),
            (
                Rules::new().with_health_path("/a b"),
                "health_path is \"/a b\": expected a path",
            ),
        ] {
            let error = rules.validate().unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
