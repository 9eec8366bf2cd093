//! One Eureka server.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Request;
use crate::registry::{
    RegistryError,
    eureka::config::Config,
    http::{self, Answer, Call, segment},
};

const JSON: &str = "application/json";

pub(super) struct Peer {
    /// Its URL without credentials.
    name: String,
    base: String,
    /// True once it has answered as Eureka does.
    known: AtomicBool,
}

/// The least of an answer about a VIP address.
#[derive(Deserialize)]
struct Applications<'a> {
    #[serde(rename = "applications", borrow)]
    _applications: &'a RawValue,
}

impl Peer {
    pub(super) fn new(server: &str, config: &Config) -> Self {
        let scheme = if config.tls { "https" } else { "http" };
        let mut base = format!("{scheme}://{server}");
        for part in config.base_path.split('/').skip(1) {
            let _never_fails = write!(base, "/{}", segment(part));
        }
        Self {
            name: config.name_of(server),
            base,
            known: AtomicBool::new(false),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends the request. An answer is a success, or Eureka's own "not found".
    ///
    /// # Errors
    ///
    /// As [`Call::send`], and `Refused` or `Busy` for any other status.
    pub(super) async fn send(
        &self,
        request: &Request<'_>,
        http: &reqwest::Client,
        config: &Config,
    ) -> Result<Answer, RegistryError> {
        let answer = self.exchange(request, http, config).await?;
        if answer.status == StatusCode::NOT_FOUND {
            self.make_sure(request, http, config).await?;
        } else if answer.status.is_success() {
            self.known.store(true, Relaxed);
        } else {
            return Err(http::refused(&self.name, request.action, &answer));
        }
        Ok(answer)
    }

    /// Checks that a 404 is Eureka's own: a wrong path gives the same status, and would look like a
    /// service without instances. Eureka answers an unknown VIP address with an empty list.
    async fn make_sure(
        &self,
        request: &Request<'_>,
        http: &reqwest::Client,
        config: &Config,
    ) -> Result<(), RegistryError> {
        if self.known.load(Relaxed) {
            return Ok(());
        }
        let mut probe = Request::new(Method::GET, "/vips/discovery".to_owned(), request.action);
        probe.limit = request.limit;
        let answer = self.exchange(&probe, http, config).await?;
        let list = serde_json::from_slice::<Applications<'_>>(&answer.body);
        if !answer.status.is_success() || list.is_err() {
            let reason = format!(
                "status 404, and the path {:?} is not that of a Eureka; check the path of the URL",
                config.base_path
            );
            return Err(http::malformed(&self.name, request.action, reason));
        }
        self.known.store(true, Relaxed);
        Ok(())
    }

    async fn exchange(
        &self,
        request: &Request<'_>,
        http: &reqwest::Client,
        config: &Config,
    ) -> Result<Answer, RegistryError> {
        let mut call = http
            .request(
                request.method.clone(),
                format!("{}{}", self.base, request.path),
            )
            // Eureka's default is XML.
            .header(ACCEPT, JSON);
        if !request.query.is_empty() {
            call = call.query(&request.query);
        }
        if let Some(user) = &config.user {
            call = call.basic_auth(user, config.password.as_deref());
        }
        if let Some(body) = &request.body {
            call = call.header(CONTENT_TYPE, JSON).body(body.clone());
        }
        let limit = request.limit.unwrap_or(config.request_timeout);
        let exchange = Call {
            registry: &self.name,
            action: request.action,
            begin_limit: limit,
            body_limit: limit,
            body_size: config.body_limit,
        };
        exchange.send(call).await
    }
}
