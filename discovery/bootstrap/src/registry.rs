//! The flags that select the registry.

#![allow(clippy::doc_markdown, reason = "the comments are what --help prints")]

use std::ffi::OsStr;

use clap::{Arg, Args, Command, builder::TypedValueParser, error::ErrorKind};
use discovery::registry::RegistryError;

use crate::values::host_port;

/// The flags that select the registry.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// Consul's address, short for --registry consul://HOST:PORT. The default of both flags is
    /// CONSUL_HTTP_ADDR, or else localhost:8500
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, conflicts_with = "registry")]
    consul: Option<String>,
    /// The registry's URL: consul://HOST:PORT, consuls://HOST:PORT (with TLS) or
    /// static://HOST:PORT,HOST:PORT. Consul's own variables (CONSUL_HTTP_TOKEN, CONSUL_HTTP_AUTH,
    /// CONSUL_HTTP_SSL, CONSUL_CACERT, CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY,
    /// CONSUL_NAMESPACE and others) apply as in Consul's own tools
    #[arg(
        long,
        value_name = "URL",
        env = "REGISTRY_URL",
        hide_env_values = true,
        value_parser = RegistryUrl
    )]
    registry: Option<String>,
}

impl RegistryArgs {
    /// The registry's URL. `consul://` without a host takes the address from Consul's environment.
    #[must_use]
    pub fn url(&self) -> String {
        match (&self.consul, &self.registry) {
            (Some(address), _) => format!("consul://{address}"),
            (None, Some(url)) => url.clone(),
            (None, None) => "consul://".to_owned(),
        }
    }
}

/// Checks a registry's URL without contacting the registry.
///
/// # Errors
///
/// When the scheme is unknown or the address is malformed.
pub fn registry_url(text: &str) -> Result<String, String> {
    match discovery::registry::connect(text) {
        // An error of the environment is reported at the start, not as one of the flag.
        Ok(_) | Err(RegistryError::InvalidSetting { .. }) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses a registry's URL. clap's own error would show the URL with its password.
#[derive(Clone)]
struct RegistryUrl;

impl TypedValueParser for RegistryUrl {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        _argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        let text = value
            .to_str()
            .ok_or("the URL is not valid UTF-8".to_owned());
        text.and_then(registry_url).map_err(|reason| {
            let message = format!("invalid value for '--registry <URL>': {reason}");
            command.clone().error(ErrorKind::ValueValidation, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        let command = RegistryArgs::augment_args(Command::new("x"));
        let line = ["x", "--registry", url];
        command.try_get_matches_from(line).unwrap_err().to_string()
    }

    #[test]
    fn a_registry_password_is_not_shown() {
        let error = error("consul://me:hunter2@host:8500");
        assert!(
            error.contains("--registry") && error.contains("CONSUL_HTTP_TOKEN"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_bad_url_is_refused_with_the_reason() {
        for (url, reason) in [
            (
                "consul",
                "expected SCHEME://..., for example consul://localhost:8500",
            ),
            ("gopher://x", "unknown scheme"),
            ("static://a", "expected HOST:PORT"),
        ] {
            let error = error(url);
            let begin = "error: invalid value for '--registry <URL>': ";
            assert!(error.starts_with(begin), "{error}");
            assert!(error.contains(reason), "{error}");
        }
    }
}
