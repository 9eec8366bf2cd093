//! HTTP calls to Consul: bounded in time and size, every failure a [`RegistryError`].

mod access;
mod request;

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use reqwest::header::CONTENT_TYPE;
use tokio::runtime::Handle;

use self::access::{Access, Credentials};
pub(super) use self::request::Request;
use super::config::Config;
use crate::registry::{
    RegistryError,
    http::{self, Answer, Call, segment},
};

pub(super) struct Client {
    access: Access,
    base: String,
    name: String,
    /// User and password.
    http_auth: Option<(String, String)>,
    namespace: Option<String>,
    request_timeout: Duration,
    body_limit: usize,
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, RegistryError> {
        let name = config.name();
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
        let mut base = format!("{scheme}://{address}");
        for part in config.path.split('/').skip(1) {
            let _never_fails = write!(base, "/{}", segment(part));
        }
        Ok(Self {
            access: Access::open(config)?,
            base,
            http_auth,
            namespace: config.namespace.clone(),
            request_timeout: config.request_timeout,
            body_limit: config.body_limit,
            name,
        })
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
    ///
    /// After a denial it reads the token's file again, and repeats the request if the token is another
    /// one.
    pub(super) async fn call(&self, request: Request<'_>) -> Result<Answer, RegistryError> {
        if Handle::try_current().is_err() {
            return Err(RegistryError::NoRuntime {
                action: request.action.to_owned(),
            });
        }
        let credentials = self.access.current();
        let result = self.send(&request, &credentials).await;
        if matches!(result, Err(RegistryError::Denied { .. }))
            && let Some(newer) = self.access.after_denial(&credentials)
        {
            return self.send(&request, &newer).await;
        }
        result
    }

    /// Sends the request once.
    async fn send(
        &self,
        request: &Request<'_>,
        credentials: &Credentials,
    ) -> Result<Answer, RegistryError> {
        let url = format!("{}{}", self.base, request.path);
        let mut call = credentials
            .http
            .request(request.method.clone(), url)
            .query(&request.query);
        if let Some(token) = &credentials.token {
            call = call.header("x-consul-token", token);
        }
        if let Some(namespace) = &self.namespace {
            call = call.query(&[("ns", namespace)]);
        }
        if let Some((user, password)) = &self.http_auth {
            call = call.basic_auth(user, Some(password));
        }
        if let Some(body) = &request.body {
            call = call
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        let exchange = Call {
            registry: &self.name,
            action: request.action,
            begin_limit: request.held.unwrap_or(self.request_timeout),
            body_limit: self.request_timeout,
            body_size: self.body_limit,
        };
        exchange.send(call).await
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

    pub(super) fn refused(&self, action: &str, answer: &Answer) -> RegistryError {
        http::refused(&self.name, action, answer)
    }

    pub(super) fn denied(&self, action: &str, reason: String) -> RegistryError {
        http::denied(&self.name, action, reason)
    }

    pub(super) fn forgotten(&self, id: &str) -> RegistryError {
        RegistryError::Forgotten {
            registry: self.name.clone(),
            id: id.to_owned(),
        }
    }

    pub(super) fn malformed(&self, action: &str, reason: String) -> RegistryError {
        http::malformed(&self.name, action, reason)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
