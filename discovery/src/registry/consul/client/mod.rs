//! HTTP calls to Consul: bounded in time and size, every failure a [`RegistryError`].

mod answer;
mod request;

use std::{fmt, time::Duration};

use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};
use tokio::{runtime::Handle, time::timeout};

pub(super) use self::{
    answer::{Answer, one_line},
    request::{Request, pathable, segment},
};
use super::config::Config;
#[cfg(feature = "tls")]
use super::tls;
use crate::{BoxError, error::chain, registry::RegistryError};

pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    name: String,
    token: Option<String>,
    /// User and password.
    http_auth: Option<(String, String)>,
    namespace: Option<String>,
    request_timeout: Duration,
    body_limit: usize,
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, RegistryError> {
        let name = config.name();
        let wrong = |reason: String| RegistryError::InvalidSetting {
            registry: name.clone(),
            reason,
        };
        let token = token(config).map_err(wrong)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = &token {
            let mut value = HeaderValue::from_str(token)
                .map_err(|_| wrong("the ACL token contains a control character".to_owned()))?;
            value.set_sensitive(true);
            headers.insert("x-consul-token", value);
        }
        let builder = reqwest::Client::builder();
        #[cfg(unix)]
        let builder = match config.socket() {
            Some(path) => builder.unix_socket(path),
            None => builder,
        };
        #[cfg(feature = "tls")]
        let builder = builder.tls_backend_preconfigured(tls::client_config(config)?);
        #[cfg(not(feature = "tls"))]
        if config.tls {
            let reason = "HTTPS needs the feature tls-ring or tls-aws-lc of the crate discovery";
            return Err(wrong(reason.to_owned()));
        }
        let http = builder
            .default_headers(headers)
            .connect_timeout(config.connect_timeout)
            // All requests share an HTTP/2 connection, so a dead one must be found before their
            // timeouts. For HTTP/1 the kernel's keepalive is on by default.
            .http2_keep_alive_interval(Duration::from_secs(15))
            .http2_keep_alive_timeout(Duration::from_secs(15))
            // Consul allows 200 connections per client address, idle ones included.
            .pool_max_idle_per_host(2)
            // A redirect could send the token to another server. Consul does not redirect.
            .redirect(redirect::Policy::none())
            // The agent is usually on this machine, which a web proxy cannot reach.
            .no_proxy()
            .user_agent(concat!("discovery/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| wrong(chain(&e)))?;
        let scheme = if config.tls { "https" } else { "http" };
        let address = match config.socket() {
            // HTTP requires a host, which a socket does not have.
            Some(_) => "localhost",
            None => &config.address,
        };
        let http_auth = config.http_auth.as_ref().map(|both| {
            let (user, password) = both.split_once(':').unwrap_or((both, ""));
            (user.to_owned(), password.to_owned())
        });
        Ok(Self {
            http,
            base: format!("{scheme}://{address}"),
            http_auth,
            namespace: config.namespace.clone(),
            request_timeout: config.request_timeout,
            body_limit: config.body_limit,
            token,
            name,
        })
    }

    /// The ACL token in use.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    ///
    /// `Unreachable` without a whole answer in time, `Denied` for 401 and 403, `Malformed` for a
    /// body over the limit, `NoRuntime` outside a tokio runtime. The caller judges any other status.
    pub(super) async fn call(&self, request: Request<'_>) -> Result<Answer, RegistryError> {
        let action = request.action;
        if Handle::try_current().is_err() {
            return Err(RegistryError::NoRuntime {
                action: action.to_owned(),
            });
        }
        let unreachable = |source: BoxError| RegistryError::Unreachable {
            registry: self.name.clone(),
            action: action.to_owned(),
            source,
        };
        let mut call = self
            .http
            .request(request.method, format!("{}{}", self.base, request.path))
            .query(&request.query);
        if let Some(namespace) = &self.namespace {
            call = call.query(&[("ns", namespace)]);
        }
        if let Some((user, password)) = &self.http_auth {
            call = call.basic_auth(user, Some(password));
        }
        if let Some(body) = request.body {
            call = call.header(CONTENT_TYPE, "application/json").body(body);
        }
        let limit = request.held.unwrap_or(self.request_timeout);
        let response = timeout(limit, call.send())
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(|e| unreachable(e.without_url().into()))?;
        let (status, headers) = (response.status(), response.headers().clone());
        // A slow body could otherwise take without limit.
        let body = timeout(self.request_timeout, self.read(response))
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(|e| unreachable(e.without_url().into()))?;
        let Some(body) = body else {
            let limit = self.body_limit;
            return Err(self.malformed(action, format!("the body is over {limit} bytes")));
        };
        let answer = Answer {
            status,
            headers,
            body,
        };
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.denied(action, answer.reason()));
        }
        Ok(answer)
    }

    /// As [`call`](Self::call), for calls that only succeed with a 2xx status.
    pub(super) async fn call_ok(&self, request: Request<'_>) -> Result<Answer, RegistryError> {
        let action = request.action;
        let answer = self.call(request).await?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(self.refused(action, &answer))
        }
    }

    /// The decompressed body, or `None` if it is over the limit.
    async fn read(&self, mut response: reqwest::Response) -> reqwest::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > self.body_limit {
                return Ok(None);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }

    pub(super) fn refused(&self, action: &str, answer: &Answer) -> RegistryError {
        RegistryError::Refused {
            registry: self.name.clone(),
            action: action.to_owned(),
            code: format!("status {}", answer.status.as_u16()),
            reason: answer.reason(),
            transient: is_transient(answer.status),
        }
    }

    pub(super) fn denied(&self, action: &str, reason: String) -> RegistryError {
        RegistryError::Denied {
            registry: self.name.clone(),
            action: action.to_owned(),
            reason,
        }
    }

    pub(super) fn forgotten(&self, id: &str) -> RegistryError {
        RegistryError::Forgotten {
            registry: self.name.clone(),
            id: id.to_owned(),
        }
    }

    pub(super) fn malformed(&self, action: &str, reason: String) -> RegistryError {
        RegistryError::Malformed {
            registry: self.name.clone(),
            action: action.to_owned(),
            reason,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .finish_non_exhaustive()
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

/// The ACL token of the configuration: the one in the file, else the one given.
fn token(config: &Config) -> Result<Option<String>, String> {
    if let Some(file) = &config.token_file {
        let text = std::fs::read_to_string(file)
            .map_err(|e| format!("token file {}: {e}", file.display()))?;
        let text = text.trim();
        if !text.is_empty() {
            return Ok(Some(text.to_owned()));
        }
    }
    Ok(config.token.clone())
}
