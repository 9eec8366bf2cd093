//! The parts of a service config that only a channel of gRPC, or only one of plain HTTP, has.

use super::{AttemptRule, MethodConfig, Name, ServiceConfig};
use crate::error::InvalidSetting;

/// The protocol of the channel that a config is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Grpc,
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "HTTP's"))]
    Http,
}

const GRPC_NAMES: &str = "a gRPC channel has names such as \
                          {\"service\": \"package.Service\", \"method\": \"Method\"}";
const HTTP_NAMES: &str = "a channel of plain HTTP has names such as \
                          {\"path\": \"/orders\", \"method\": \"GET\"}";
const CODES: &str = "goes by gRPC's status codes; for plain HTTP leave it out: http::Rules has the \
                     statuses, and `discovery` the attempts and the backoff";

impl Dialect {
    /// Checks that the config has no part that only the other protocol has.
    ///
    /// # Errors
    ///
    /// The first such part.
    pub(crate) fn check(self, config: &ServiceConfig) -> Result<(), InvalidSetting> {
        let in_methods = config.methods.iter().flat_map(|entry| &entry.names);
        let in_routes = config.own.routes.iter().flat_map(|route| &route.names);
        for name in in_methods.chain(in_routes) {
            self.check_name(name)?;
        }
        if self == Self::Grpc {
            return Ok(());
        }
        for entry in &config.methods {
            check_method(entry)?;
        }
        if config.health.is_some() {
            return given(
                "healthCheckConfig",
                "calls gRPC's health service; for plain HTTP leave it out: http::Rules has the path",
            );
        }
        Ok(())
    }

    fn check_name(self, name: &Name) -> Result<(), InvalidSetting> {
        let (value, expected) = match (self, name) {
            (Self::Grpc, Name::Path(name)) => (name.path(), GRPC_NAMES),
            (Self::Http, Name::Method(path) | Name::Service(path)) => (&**path, HTTP_NAMES),
            _ => return Ok(()),
        };
        Err(InvalidSetting::new(
            "name of the service config",
            format!("{value:?}"),
            expected,
        ))
    }
}

/// Checks an entry for plain HTTP.
fn check_method(entry: &MethodConfig) -> Result<(), InvalidSetting> {
    match &entry.attempts {
        Some(AttemptRule::Retry { .. }) => return given("retryPolicy", CODES),
        Some(AttemptRule::Hedging { non_fatal, .. }) if !non_fatal.is_empty() => {
            return given("nonFatalStatusCodes", CODES);
        }
        _ => {}
    }
    if entry.own.retry_codes.is_some() {
        return given("retryCodes", CODES);
    }
    if entry.own.idempotent_codes.is_some() {
        return given("idempotentCodes", CODES);
    }
    let messages = "is the size of a gRPC message; for plain HTTP leave it out";
    if entry.max_request.is_some() {
        return given("maxRequestMessageBytes", messages);
    }
    if entry.max_response.is_some() {
        return given("maxResponseMessageBytes", messages);
    }
    Ok(())
}

fn given(setting: &'static str, expected: &'static str) -> Result<(), InvalidSetting> {
    Err(InvalidSetting::new(setting, "given", expected))
}
