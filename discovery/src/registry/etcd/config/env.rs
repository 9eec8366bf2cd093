//! Configuration from etcdctl's environment variables and from a URL.

use std::{ffi::OsString, time::Duration};

use super::{Config, go_duration};
use crate::{
    instance::Instance,
    registry::{RegistryError, RegistryUrl, etcd::layout::Layout, variables::Variables},
};

const DEFAULT_PORT: u16 = 2379;

impl Config {
    /// The defaults, overridden by etcdctl's environment variables. An empty variable counts as unset.
    ///
    /// `lookup` reads a variable: `|name| std::env::var_os(name)` in a program.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] with the variable's name when its value cannot be used.
    pub fn from_env(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, RegistryError> {
        let variables = Variables::new("etcd", lookup);
        let text = |name: &str| variables.text(name);
        let file = |name: &str| variables.file(name);
        let duration = |name: &str, default: Duration| match text(name)? {
            None => Ok(default),
            Some(value) => go_duration::parse(&value).ok_or_else(|| {
                variables.invalid(format!("{name} is {value:?}, expected a time such as 5s"))
            }),
        };
        let defaults = Self::default();
        let mut config = Self {
            ca_file: file("ETCDCTL_CACERT"),
            client_cert: file("ETCDCTL_CERT"),
            client_key: file("ETCDCTL_KEY"),
            token: text("ETCDCTL_AUTH_JWT_TOKEN")?,
            tls_verify: !variables
                .switch("ETCDCTL_INSECURE_SKIP_TLS_VERIFY")?
                .unwrap_or(false),
            connect_timeout: duration("ETCDCTL_DIAL_TIMEOUT", defaults.connect_timeout)?,
            request_timeout: duration("ETCDCTL_COMMAND_TIMEOUT", defaults.request_timeout)?,
            ..defaults
        };
        config.set_user(text("ETCDCTL_USER")?, text("ETCDCTL_PASSWORD")?);
        // As etcdctl does for endpoints without a scheme.
        config.tls = config.ca_file.is_some()
            || config.client_cert.is_some()
            || config.client_key.is_some()
            || !variables
                .switch("ETCDCTL_INSECURE_TRANSPORT")?
                .unwrap_or(true);
        if let Some(endpoints) = text("ETCDCTL_ENDPOINTS")? {
            let invalid = |reason| variables.invalid(format!("ETCDCTL_ENDPOINTS: {reason}"));
            config.set_endpoints(&endpoints).map_err(invalid)?;
        } else if text("ETCDCTL_DISCOVERY_SRV")?.is_some() {
            return Err(variables.invalid(
                "ETCDCTL_DISCOVERY_SRV is not supported; list the members in ETCDCTL_ENDPOINTS",
            ));
        }
        Ok(config)
    }

    /// The environment's configuration, overridden by
    /// `etcd://[USER[:PASSWORD]@]HOST[:PORT],.../PREFIX?layout=gokit|grpc` (or `etcds://` for TLS).
    ///
    /// The URL's hosts replace `ETCDCTL_ENDPOINTS`; the default port is 2379. A user without a
    /// password takes it from `ETCDCTL_PASSWORD`. Without a path, the prefix is that of the layout;
    /// [`Layout`] says how a path is read.
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
        let tls = match url.scheme() {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(url.invalid("expected etcd://HOST:PORT or etcds://HOST:PORT")),
        };
        let layout = match url.take("layout").as_deref() {
            None => Layout::default(),
            Some(name) => Layout::parse(name).ok_or_else(|| {
                url.invalid(format!("layout is {name:?}, expected gokit or grpc"))
            })?,
        };
        url.finish(&["layout"])?;
        let hosts = url.hosts(DEFAULT_PORT)?;
        let replaced = |name: &str| {
            let endpoints = ["ETCDCTL_ENDPOINTS", "ETCDCTL_DISCOVERY_SRV"].contains(&name);
            let user = ["ETCDCTL_USER", "ETCDCTL_AUTH_JWT_TOKEN"].contains(&name);
            (endpoints && !hosts.is_empty()) || (user && url.user().is_some())
        };
        let mut config = Self::from_env(|name| (!replaced(name)).then(|| lookup(name)).flatten())?;
        config.tls |= tls;
        if !hosts.is_empty() {
            config.endpoints = hosts;
        }
        if let Some(user) = url.user() {
            config.user = Some(user.to_owned());
            if let Some(password) = url.password() {
                config.password = Some(password.to_owned());
            }
        }
        config.layout = layout;
        config.prefix = layout.prefix_of(url.path());
        Ok(config)
    }

    /// `USER:PASSWORD`, or both apart.
    fn set_user(&mut self, user: Option<String>, password: Option<String>) {
        (self.user, self.password) = match (user, password) {
            (Some(user), None) => match user.split_once(':') {
                Some((user, password)) => (Some(user.to_owned()), Some(password.to_owned())),
                None => (Some(user), None),
            },
            // A password alone has no use; the URL may name its user.
            both => both,
        };
    }

    /// Reads a list of `HOST:PORT`, `http://HOST:PORT` and `https://HOST:PORT`, as etcdctl does.
    fn set_endpoints(&mut self, list: &str) -> Result<(), String> {
        let mut tls = None;
        let mut endpoints = Vec::new();
        for endpoint in list.split(',').map(str::trim) {
            let (scheme, address) = match endpoint.split_once("://") {
                None => (self.tls, endpoint),
                Some(("http", address)) => (false, address),
                Some(("https", address)) => (true, address),
                Some((scheme, _)) => {
                    return Err(format!(
                        "the scheme {scheme:?} is not supported; expected HOST:PORT, \
                         http://HOST:PORT or https://HOST:PORT"
                    ));
                }
            };
            if *tls.get_or_insert(scheme) != scheme {
                return Err("either all members use TLS or none does".to_owned());
            }
            let address = address.strip_suffix('/').unwrap_or(address);
            let member = Instance::parse(address).map_err(|e| e.to_string())?;
            endpoints.push(member.authority());
        }
        self.tls = tls.unwrap_or(self.tls);
        self.endpoints = endpoints;
        Ok(())
    }
}
