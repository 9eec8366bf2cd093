//! One HTTP call to Consul: bounded in time and size, every failure a [`RegistryError`].

use std::{fmt, time::Duration};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};

use super::Config;
#[cfg(feature = "tls")]
use super::tls;
use crate::registry::RegistryError;

/// An ID or a name is one path segment, whatever it holds.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

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

/// What Consul is asked.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// From `/v1` on, put together with [`segment`].
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, &'a str)>,
    pub(super) body: Option<Bytes>,
    /// How long until the answer begins. `None`: Consul gives it at once.
    pub(super) held: Option<Duration>,
    /// What this is for, after "while trying to".
    pub(super) action: &'a str,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, path: String, action: &'a str) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            held: None,
            action,
        }
    }
}

/// An answer of any status, except "denied".
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Consul's own words, cut to a line that is fit for a log.
    pub(super) fn reason(&self) -> String {
        if self.status.is_redirection() {
            return "redirects are not followed; is this Consul's own address?".to_owned();
        }
        let text = String::from_utf8_lossy(&self.body);
        let line = text.trim_start().lines().next().unwrap_or_default();
        let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
        if line.is_empty() {
            "no reason given".to_owned()
        } else {
            line
        }
    }
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
                .map_err(|_| wrong("the ACL token holds a control character".to_owned()))?;
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
            // An HTTP/2 connection carries everything; a dead one must not be noticed by timeouts
            // only. HTTP/1 has the kernel's keepalive, which is on by default.
            .http2_keep_alive_interval(Duration::from_secs(15))
            .http2_keep_alive_timeout(Duration::from_secs(15))
            // Consul allows 200 connections per client address, used or not.
            .pool_max_idle_per_host(2)
            // A redirect could take the token anywhere, and Consul sends none.
            .redirect(redirect::Policy::none())
            // A proxy for the web knows no way to the agent, which mostly is on this machine.
            .no_proxy()
            .user_agent(concat!("discovery/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| wrong(crate::error::chain(&e)))?;
        let scheme = if config.tls { "https" } else { "http" };
        let address = match config.socket() {
            // A request names some host.
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

    /// The ACL token in use, wherever it came from.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    ///
    /// `Unreachable` without a whole answer in time, `Denied` for 401 and 403, `Malformed` for a
    /// body over the limit. Any other status is the caller's to judge.
    pub(super) async fn call(&self, request: Request<'_>) -> Result<Answer, RegistryError> {
        let action = request.action;
        let unreachable = |source: crate::BoxError| RegistryError::Unreachable {
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
        let until_answer = request.held.unwrap_or(self.request_timeout);
        let response = tokio::time::timeout(until_answer, call.send())
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(|e| unreachable(e.without_url().into()))?;
        let (status, headers) = (response.status(), response.headers().clone());
        // A body may trickle in for ever.
        let body = tokio::time::timeout(self.request_timeout, self.read(response))
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

    /// The decompressed body, or nothing if it is over the limit.
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
            status: answer.status.as_u16(),
            reason: answer.reason(),
        }
    }

    pub(super) fn denied(&self, action: &str, reason: String) -> RegistryError {
        RegistryError::Denied {
            registry: self.name.clone(),
            action: action.to_owned(),
            reason,
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

/// Whether a name can stand in a path. Encoded or not, Consul's server sees its slashes and dots,
/// and redirects what it would write otherwise.
pub(super) fn pathable(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("is empty")
    } else if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Err("cannot stand in a URL path")
    } else {
        Ok(())
    }
}

/// One path segment that may hold anything.
pub(super) fn segment(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, SEGMENT)
}

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
