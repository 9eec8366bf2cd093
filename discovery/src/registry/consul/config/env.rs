//! Configuration from Consul's environment variables and from a URL.

use std::ffi::OsString;

use super::{
    Config,
    address::{CREDENTIALS, host_and_port, path},
    datacenters::datacenters,
};
use crate::registry::{
    RegistryError, RegistryUrl,
    variables::{Variables, parse_bool},
};

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
        let variables = Variables::new("consul", lookup);
        let text = |name: &str| variables.text(name);
        let file = |name: &str| variables.file(name);
        let switch = |name: &str| variables.switch(name);
        let mut config = Self {
            tls: switch("CONSUL_HTTP_SSL")?.unwrap_or(false),
            token: text("CONSUL_HTTP_TOKEN")?,
            token_file: file("CONSUL_HTTP_TOKEN_FILE"),
            http_auth: text("CONSUL_HTTP_AUTH")?,
            namespace: text("CONSUL_NAMESPACE")?,
            ca_file: file("CONSUL_CACERT"),
            ca_path: file("CONSUL_CAPATH"),
            client_cert: file("CONSUL_CLIENT_CERT"),
            client_key: file("CONSUL_CLIENT_KEY"),
            tls_server_name: text("CONSUL_TLS_SERVER_NAME")?,
            tls_verify: switch("CONSUL_HTTP_SSL_VERIFY")?.unwrap_or(true),
            ..Self::default()
        };
        if let Some(address) = text("CONSUL_HTTP_ADDR")? {
            let invalid = |reason| variables.invalid(format!("CONSUL_HTTP_ADDR: {reason}"));
            config.set_http_addr(&address).map_err(invalid)?;
        }
        Ok(config)
    }

    /// The environment's configuration, overridden by `consul://HOST:PORT[/PATH][?SETTINGS]` (or
    /// `consuls://` for HTTPS).
    ///
    /// The URL's host replaces `CONSUL_HTTP_ADDR` and its scheme. A URL without a host keeps both.
    /// The default port is 8500, with HTTPS 8501.
    ///
    /// | setting | field |
    /// |---|---|
    /// | `dc=NAME,NAME` | [`datacenter`](Self::datacenter) |
    /// | `filter=EXPRESSION` | [`filter`](Self::filter) |
    /// | `prepared=true` | [`prepared`](Self::prepared) |
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] when the URL has another form, [`RegistryError::InvalidSetting`]
    /// when a variable cannot be used.
    pub fn from_url(
        url: &str,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, RegistryError> {
        let mut url = RegistryUrl::parse(url)?;
        let explicit_tls = match url.scheme() {
            "consul" => false,
            "consuls" => true,
            _ => return Err(url.invalid("expected consul://HOST:PORT or consuls://HOST:PORT")),
        };
        if url.user().is_some() {
            return Err(url.invalid(CREDENTIALS));
        }
        let named = !url.authority().is_empty();
        let mut config = Self::from_env(|name| {
            let wanted = !named || name != "CONSUL_HTTP_ADDR";
            wanted.then(|| lookup(name)).flatten()
        })?;
        config.tls |= explicit_tls;
        if named {
            let default_port = if config.tls { 8501 } else { 8500 };
            config.address =
                host_and_port(url.authority(), default_port).map_err(|e| url.invalid(e))?;
        }
        let given = url.path().strip_suffix('/').unwrap_or(url.path());
        path(given).map_err(|reason| url.invalid(reason))?;
        if !given.is_empty() {
            given.clone_into(&mut config.path);
        }
        config.take_settings(&mut url)?;
        Ok(config)
    }

    fn take_settings(&mut self, url: &mut RegistryUrl) -> Result<(), RegistryError> {
        if let Some(names) = url.take("dc") {
            datacenters(&names).map_err(|reason| url.invalid(reason))?;
            self.datacenter = Some(names);
        }
        if let Some(filter) = url.take("filter") {
            if filter.trim().is_empty() {
                return Err(url.invalid("the filter is empty"));
            }
            self.filter = Some(filter);
        }
        if let Some(prepared) = url.take("prepared") {
            self.prepared = match prepared.as_str() {
                "" => true,
                text => {
                    parse_bool(text).ok_or_else(|| url.invalid("prepared must be true or false"))?
                }
            };
        }
        url.finish(&["dc", "filter", "prepared"])
    }

    /// Reads `HOST:PORT` or a URL as Consul's tools do: the default port is that of HTTP or HTTPS.
    fn set_http_addr(&mut self, value: &str) -> Result<(), &'static str> {
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
            "unix" => return Err("expected unix:///PATH, on Unix"),
            _ => return Err("expected HOST:PORT, http://HOST:PORT or https://..."),
        }
        let (authority, after) = match authority.find('/') {
            Some(at) => authority.split_at(at),
            None => (authority, ""),
        };
        let given = after.strip_suffix('/').unwrap_or(after);
        path(given)?;
        given.clone_into(&mut self.path);
        let default_port = if self.tls { 443 } else { 80 };
        self.address = host_and_port(authority, default_port)?;
        Ok(())
    }
}
