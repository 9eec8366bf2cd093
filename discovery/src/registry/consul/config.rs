//! Where Consul is and how to talk to it: defaults, Consul's own environment variables, the URL.
//!
//! Nothing here reads a file or opens a connection; [`Consul::new`](super::Consul::new) does.

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use url::Url;

use crate::registry::RegistryError;

/// How to reach and use a Consul agent or cluster.
///
/// ```
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// use discovery::registry::consul::{Config, Consul};
///
/// let mut config = Config::default();
/// config.address = "127.0.0.1:8500".to_owned();
/// config.datacenter = Some("dc1".to_owned());
/// let consul = Consul::new(&config)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// `HOST:PORT`, or `unix:///PATH` for a socket (on Unix). Default: `localhost:8500`. From
    /// `CONSUL_HTTP_ADDR`.
    pub address: String,
    /// HTTPS instead of HTTP. Default: no. From `CONSUL_HTTP_SSL`, or `https://` in
    /// `CONSUL_HTTP_ADDR`.
    pub tls: bool,
    /// The ACL token, sent with every request. Default: none. From `CONSUL_HTTP_TOKEN`.
    pub token: Option<String>,
    /// A file that holds the ACL token; it wins over [`token`](Self::token), as in Consul's own
    /// tools. Default: none. From `CONSUL_HTTP_TOKEN_FILE`.
    pub token_file: Option<PathBuf>,
    /// `USER:PASSWORD` for HTTP basic authentication, for a proxy in front of Consul. Default: none.
    /// From `CONSUL_HTTP_AUTH`.
    pub http_auth: Option<String>,
    /// The namespace to register and look up in (Consul Enterprise). Default: the token's own.
    /// From `CONSUL_NAMESPACE`.
    pub namespace: Option<String>,
    /// The datacenter to look up in. Default: the agent's own. A registration always goes to the
    /// agent's own.
    pub datacenter: Option<String>,
    /// PEM file of the certificate authorities to trust, instead of the system's. From
    /// `CONSUL_CACERT`.
    pub ca_file: Option<PathBuf>,
    /// Folder of such PEM files, all of which count. [`ca_file`](Self::ca_file) wins over it, as in
    /// Consul's own tools. From `CONSUL_CAPATH`.
    pub ca_path: Option<PathBuf>,
    /// PEM file of the client certificate and its chain. Needs [`client_key`](Self::client_key).
    /// From `CONSUL_CLIENT_CERT`.
    pub client_cert: Option<PathBuf>,
    /// PEM file of the client certificate's key. From `CONSUL_CLIENT_KEY`.
    pub client_key: Option<PathBuf>,
    /// The name that the server's certificate must carry. Default: the host in
    /// [`address`](Self::address). From `CONSUL_TLS_SERVER_NAME`.
    pub tls_server_name: Option<String>,
    /// Whether the server's certificate is verified. Default: yes. Without it anyone on the way can
    /// pose as Consul and read the token. From `CONSUL_HTTP_SSL_VERIFY`.
    pub tls_verify: bool,
    /// How long making a connection may take, TLS included. Default: 2 s. Longer than the second
    /// after which a lost first packet is repeated.
    pub connect_timeout: Duration,
    /// How long an answer may take that Consul gives at once. Default: 10 s. Consul holds a request
    /// for about 7 s while it elects a leader.
    pub request_timeout: Duration,
    /// How long Consul may hold a watch's request when nothing changes. Default: 55 s, at most
    /// 10 min. Each watch costs Consul one request in this time; a Consul that hangs without
    /// closing its connections is noticed after it and a little more.
    pub wait: Duration,
    /// The time between two answers that a watch takes while instances keep changing. Default:
    /// 500 ms. A few changes after a quiet time are seen at once.
    pub change_interval: Duration,
    /// The most bytes of one answer, after decompression. Default: 64 MiB; 5000 instances take
    /// about 8.
    pub body_limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: "localhost:8500".to_owned(),
            tls: false,
            token: None,
            token_file: None,
            http_auth: None,
            namespace: None,
            datacenter: None,
            ca_file: None,
            ca_path: None,
            client_cert: None,
            client_key: None,
            tls_server_name: None,
            tls_verify: true,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            wait: Duration::from_secs(55),
            change_interval: Duration::from_millis(500),
            body_limit: 64 << 20,
        }
    }
}

impl Config {
    /// The defaults, overridden by what Consul's environment variables say. An empty variable
    /// counts as unset.
    ///
    /// `lookup` is where they are read from: `|name| std::env::var_os(name)` in a program.
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

    /// What `consul://HOST:PORT` (or `consuls://` for HTTPS) says, over what the environment says.
    ///
    /// The URL's host wins over `CONSUL_HTTP_ADDR`, whose scheme then counts no more either; a URL
    /// without a host leaves it. The port is 8500, with HTTPS 8501, unless the URL gives one.
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

    /// As messages and logs name this Consul: its URL, without credentials.
    #[must_use]
    pub fn name(&self) -> String {
        if self.socket().is_some() {
            return self.address.clone();
        }
        let scheme = if self.tls { "consuls" } else { "consul" };
        format!("{scheme}://{}", self.address)
    }

    /// `HOST:PORT`, or a URL of it, as Consul's tools read it: without a port it is HTTP's own.
    fn set_http_addr(&mut self, value: &str) -> Result<(), RegistryError> {
        let invalid = |reason: &str| setting(format!("CONSUL_HTTP_ADDR: {reason}"));
        let (scheme, authority) = value.split_once("://").unwrap_or(("", value));
        match scheme {
            // CONSUL_HTTP_SSL asked for TLS already; the address does not take it back.
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

    /// The path of the socket that [`address`](Self::address) names, if it names one.
    pub(super) fn socket(&self) -> Option<&str> {
        self.address.strip_prefix("unix://").filter(|_| cfg!(unix))
    }

    pub(super) fn validate(&self) -> Result<(), RegistryError> {
        let wrong = |reason: &str| RegistryError::InvalidSetting {
            registry: self.name(),
            reason: reason.to_owned(),
        };
        let address = match self.socket() {
            Some(path) => path.starts_with('/') && !self.tls,
            None => host_and_port(&self.address, 8500).as_ref() == Ok(&self.address),
        };
        if !address {
            return Err(wrong(
                "the address is neither HOST:PORT nor unix:///PATH without TLS",
            ));
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err(wrong(
                "a client certificate and its key (CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY) go together",
            ));
        }
        let second = Duration::from_secs(1);
        if !(second..=600 * second).contains(&self.wait) {
            return Err(wrong("the wait is outside 1 s to 10 min"));
        }
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            return Err(wrong("a timeout of zero lets nothing through"));
        }
        if self.change_interval.is_zero() {
            return Err(wrong("the change interval is zero"));
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    /// All but the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name())
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("token_file", &self.token_file)
            .field("http_auth", &self.http_auth.as_ref().map(|_| "..."))
            .field("namespace", &self.namespace)
            .field("datacenter", &self.datacenter)
            .field("ca_file", &self.ca_file)
            .field("ca_path", &self.ca_path)
            .field("client_cert", &self.client_cert)
            .field("tls_server_name", &self.tls_server_name)
            .field("tls_verify", &self.tls_verify)
            .finish_non_exhaustive()
    }
}

/// `HOST:PORT` of an authority, which must hold nothing else.
fn host_and_port(authority: &str, default_port: u16) -> Result<String, &'static str> {
    if authority.contains('@') {
        return Err("credentials do not belong into an address; use CONSUL_HTTP_TOKEN");
    }
    if authority.contains(['/', '?', '#', '\\']) {
        return Err("a path or query is not supported");
    }
    // An http:// URL has its host checked and normalized, but swallows `:80`.
    let checked =
        Url::parse(&format!("http://{authority}")).map_err(|_| "the host or port is invalid")?;
    let host = checked.host_str().ok_or("the host is missing")?;
    let explicit_80 = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse() == Ok(80));
    match checked
        .port()
        .or(explicit_80.then_some(80))
        .unwrap_or(default_port)
    {
        0 => Err("port 0 cannot be connected to"),
        port => Ok(format!("{host}:{port}")),
    }
}

/// The spellings that Consul's tools take.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        |name| {
            let pair = pairs.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| value.into())
        }
    }

    #[test]
    fn without_anything_it_is_localhost() {
        assert_eq!(Config::from_env(env(&[])).unwrap(), Config::default());
        let config = Config::from_url("consul://", env(&[("CONSUL_HTTP_ADDR", "")])).unwrap();
        assert_eq!(config.name(), "consul://localhost:8500");
    }

    #[test]
    fn reads_addresses_as_consul_does() {
        for (value, name) in [
            ("10.0.0.1:8500", "consul://10.0.0.1:8500"),
            ("http://10.0.0.1:8500", "consul://10.0.0.1:8500"),
            ("https://consul.example/", "consuls://consul.example:443"),
            ("http://consul.example", "consul://consul.example:80"),
            ("[::1]:8501", "consul://[::1]:8501"),
            ("unix:///run/consul.sock", "unix:///run/consul.sock"),
        ] {
            let config = Config::from_env(|n| (n == "CONSUL_HTTP_ADDR").then(|| value.into()));
            assert_eq!(config.unwrap().name(), name);
        }
    }

    #[test]
    fn an_explicit_address_beats_the_environment_and_keeps_the_rest() {
        let lookup = env(&[
            ("CONSUL_HTTP_ADDR", "https://elsewhere:1"),
            ("CONSUL_HTTP_TOKEN", "secret"),
        ]);
        let config = Config::from_url("consul://here:80", &lookup).unwrap();
        assert_eq!(config.name(), "consul://here:80");
        assert_eq!(config.token.as_deref(), Some("secret"));
        let config = Config::from_url("consuls://here", &lookup).unwrap();
        assert_eq!(config.name(), "consuls://here:8501");
        let config = Config::from_url("consul://", &lookup).unwrap();
        assert_eq!(config.name(), "consuls://elsewhere:1");
        let config = Config::from_url("consul://[::1]/", env(&[("CONSUL_HTTP_SSL", "true")]));
        assert_eq!(config.unwrap().name(), "consuls://[::1]:8501");
    }

    #[test]
    fn a_wrong_variable_is_named() {
        for (name, value) in [
            ("CONSUL_HTTP_ADDR", "unix://consul.sock"),
            ("CONSUL_HTTP_ADDR", "ftp://a:1"),
            ("CONSUL_HTTP_ADDR", "a:b"),
            ("CONSUL_HTTP_SSL", "yes"),
            ("CONSUL_HTTP_SSL_VERIFY", "2"),
        ] {
            let error = Config::from_env(|n| (n == name).then(|| value.into())).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_showing_a_password() {
        for url in [
            "consul",
            "http://localhost:8500",
            "consul://host:0",
            "consul://host:70000",
            "consul://host:port",
            "consul://:8500",
            "consul://host/path",
            "consul://host?token=a",
            "consul://a b:8500",
            "consul://user:hunter2@host:8500",
        ] {
            let error = Config::from_url(url, env(&[])).unwrap_err();
            assert!(matches!(error, RegistryError::InvalidUrl { .. }), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn never_shows_a_secret() {
        let config = Config {
            token: Some("hunter2".to_owned()),
            http_auth: Some("me:hunter2".to_owned()),
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn refuses_settings_that_cannot_work() {
        let change: [fn(&mut Config); 6] = [
            |c| c.address = "localhost".to_owned(),
            |c| c.address = "unix://consul.sock".to_owned(),
            |c| c.client_cert = Some("cert.pem".into()),
            |c| c.wait = Duration::from_millis(999),
            |c| c.wait = Duration::from_secs(601),
            |c| c.connect_timeout = Duration::ZERO,
        ];
        for change in change {
            let mut config = Config::default();
            assert!(config.validate().is_ok());
            change(&mut config);
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
