//! HTTP calls to registries: bounded in time and size, every failure a [`RegistryError`].

mod answer;
mod files;
mod segment;

use std::time::Duration;

use reqwest::{ClientBuilder, RequestBuilder, Response, StatusCode, redirect};
use tokio::time::timeout;

#[cfg(feature = "consul")]
pub(super) use self::answer::one_line;
pub(super) use self::{answer::Answer, files::Version, segment::segment};
use super::RegistryError;
use crate::BoxError;

/// One call: its names for messages, and its limits.
pub(super) struct Call<'a> {
    /// The registry's name.
    pub(super) registry: &'a str,
    /// The purpose: "while trying to {action}".
    pub(super) action: &'a str,
    /// Time limit until the answer begins.
    pub(super) begin_limit: Duration,
    /// Time limit for the body after that.
    pub(super) body_limit: Duration,
    /// Size limit of the body in bytes, after decompression.
    pub(super) body_size: usize,
}

impl Call<'_> {
    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    ///
    /// `Unreachable` without a whole answer in time, `Denied` for 401 and 403, `Malformed` for a body
    /// over the limit. The caller judges any other status.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer, RegistryError> {
        let unreachable = |source: BoxError| RegistryError::Unreachable {
            registry: self.registry.to_owned(),
            action: self.action.to_owned(),
            source,
        };
        let response = timeout(self.begin_limit, request.send())
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(|e| unreachable(e.without_url().into()))?;
        let (status, headers) = (response.status(), response.headers().clone());
        // A slow body could otherwise take without limit.
        let body = timeout(self.body_limit, read(response, self.body_size))
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(|e| unreachable(e.without_url().into()))?;
        let Some(body) = body else {
            let limit = self.body_size;
            let reason = format!("the body is over {limit} bytes");
            return Err(malformed(self.registry, self.action, reason));
        };
        let answer = Answer {
            status,
            headers,
            body,
        };
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(denied(self.registry, self.action, answer.reason()));
        }
        Ok(answer)
    }
}

/// The decompressed body, or `None` if it is over the limit.
async fn read(mut response: Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// The error of an answer that is not a success.
pub(super) fn refused(registry: &str, action: &str, answer: &Answer) -> RegistryError {
    let (registry, action) = (registry.to_owned(), action.to_owned());
    let code = format!("status {}", answer.status.as_u16());
    let reason = answer.reason();
    let transient = is_transient(answer.status);
    match answer.retry_after() {
        Some(retry_after) if transient => RegistryError::Busy {
            registry,
            action,
            code,
            reason,
            retry_after,
        },
        _ => RegistryError::Refused {
            registry,
            action,
            code,
            reason,
            transient,
        },
    }
}

pub(super) fn denied(registry: &str, action: &str, reason: String) -> RegistryError {
    RegistryError::Denied {
        registry: registry.to_owned(),
        action: action.to_owned(),
        reason,
    }
}

pub(super) fn malformed(registry: &str, action: &str, reason: String) -> RegistryError {
    RegistryError::Malformed {
        registry: registry.to_owned(),
        action: action.to_owned(),
        reason,
    }
}

/// True for the statuses of an overloaded or failing server.
fn is_transient(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        )
}

/// The settings that all registries' clients share.
pub(super) fn client_builder(connect_timeout: Duration) -> ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(connect_timeout)
        // All requests share an HTTP/2 connection, so a dead one must be found before their timeouts.
        // For HTTP/1 the kernel's keepalive is on by default.
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(15))
        // A redirect could send the credentials to another server. Registries do not redirect.
        .redirect(redirect::Policy::none())
        // A registry is in the same network, which a web proxy may not reach.
        .no_proxy()
        .user_agent(concat!("discovery/", env!("CARGO_PKG_VERSION")))
}
