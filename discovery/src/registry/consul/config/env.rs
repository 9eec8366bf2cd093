//! Configuration from Consul's environment variables and from a URL.

use std::{ffi::OsString, path::PathBuf};

use super::{Config, address::host_and_port};
use crate::registry::RegistryError;

impl Config {
    /// The defaults, overridden by Consul's environment variables. An empty variable counts as
    /// unset.
    ///
    /// `lookup` reads a variable: `|name| std::env::var_os(name)` in a program.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] with the variable's name when its value cannot be used.
    pub fn from_env(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, RegistryError> {
        let path = |name| {
            let value = lookup(name).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        let text = |name: &str| {
            lookup(name)
                .filter(|value| !value.is_empty())
                .map(|value| {
                    let not_text = |_| setting(format!("{name} is not valid UTF-8"));
                    value.into_string().map_err(not_text)
                })
                .transpose()
        };
        let switch = |name: &str| {
            text(name)?
                .map(|value| {
                    parse_bool(&value).ok_or_else(|| {
                        setting(format!("{name} is {value:?}, expected true or false"))
                    })
                })
                .transpose()
        };
        let mut config = Self {
            tls: switch("CONSUL_HTTP_SSL")?.unwrap_or(false),
            token: text("CONSUL_HTTP_TOKEN")?,
            token_file: path("CONSUL_HTTP_TOKEN_FILE"),
            http_auth: text("CONSUL_HTTP_AUTH")?,
            namespace: text("CONSUL_NAMESPACE")?,
            ca_file: path("CONSUL_CACERT"),
            ca_path: path("CONSUL_CAPATH"),
            client_cert: path("CONSUL_CLIENT_CERT"),
            client_key: path("CONSUL_CLIENT_KEY"),
            tls_server_name: text("CONSUL_TLS_SERVER_NAME")?,
            tls_verify: switch("CONSUL_HTTP_SSL_VERIFY")?.unwrap_or(true),
            ..Self::default()
        };
        if let Some(address) = text("CONSUL_HTTP_ADDR")? {
            config.set_http_addr(&address)?;
        }
        Ok(config)
    }

    /// The environment's configuration, overridden by `consul://HOST:PORT` (or `consuls://` for
    /// HTTPS).
    ///
    /// The URL's host replaces `CONSUL_HTTP_ADDR` and its scheme. A URL without a host keeps both.
    /// The default port is 8500, with HTTPS 8501.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] when the URL has another form, [`RegistryError::InvalidSetting`]
    /// when a variable cannot be used.
    pub fn from_url(
        url: &str,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, RegistryError> {
        let invalid = |reason: &str| RegistryError::invalid_url(url, reason);
        let (scheme, authority) = url
            .split_once("://")
            .map(|(scheme, rest)| (scheme, rest.strip_suffix('/').unwrap_or(rest)))
            .filter(|(scheme, _)| matches!(*scheme, "consul" | "consuls"))
            .ok_or_else(|| invalid("expected consul://HOST:PORT or consuls://HOST:PORT"))?;
        let explicit_tls = scheme == "consuls";
        if authority.is_empty() {
            let mut config = Self::from_env(lookup)?;
            config.tls |= explicit_tls;
            return Ok(config);
        }
        let mut config =
            Self::from_env(|name| (name != "CONSUL_HTTP_ADDR").then(|| lookup(name)).flatten())?;
        config.tls |= explicit_tls;
        let default_port = if config.tls { 8501 } else { 8500 };
        config.address = host_and_port(authority, default_port).map_err(invalid)?;
        Ok(config)
    }

    /// Reads `HOST:PORT` or a URL as Consul's tools do: the default port is that of HTTP or HTTPS.
    fn set_http_addr(&mut self, value: &str) -> Result<(), RegistryError> {
        let invalid = |reason: &str| setting(format!("CONSUL_HTTP_ADDR: {reason}"));
        let (scheme, authority) = value.split_once("://").unwrap_or(("", value));
        match scheme {
            // As in Consul's tools, http:// does not undo CONSUL_HTTP_SSL.
            "" | "http" => {}
            "https" => self.tls = true,
            "unix" if cfg!(unix) && authority.starts_with('/') => {
                self.tls = false;
                value.clone_into(&mut self.address);
                return Ok(());
            }
            "unix" => return Err(invalid("expected unix:///PATH, on Unix")),
            _ => {
                return Err(invalid(
                    "expected HOST:PORT, http://HOST:PORT or https://...",
                ));
            }
        }
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let default_port = if self.tls { 443 } else { 80 };
        self.address = host_and_port(authority, default_port).map_err(invalid)?;
        Ok(())
    }
}

/// The spellings that Consul's tools accept.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn setting(reason: String) -> RegistryError {
    RegistryError::InvalidSetting {
        registry: "consul".to_owned(),
        reason,
    }
}
