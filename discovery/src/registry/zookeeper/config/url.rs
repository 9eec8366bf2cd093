//! Configuration from a URL.

use super::Config;
use crate::registry::{
    RegistryError, RegistryUrl,
    zookeeper::{Access, Layout},
};

/// ZooKeeper's port, and the one of its documentation for TLS.
const PORT: u16 = 2181;
const TLS_PORT: u16 = 2281;

/// The settings in the part after `?`.
const SETTINGS: [&str; 6] = ["layout", "session_timeout", "acl", "ca", "cert", "key"];

impl Config {
    /// Reads `zookeeper://[USER:PASSWORD@]HOST[:PORT],.../BASE/PATH?SETTINGS`, or `zookeepers://` for
    /// TLS. See the [module](crate::registry::zookeeper) for the settings.
    ///
    /// Without a host: `localhost`. The default port is 2181, with TLS 2281.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] when the URL has another form or a value that cannot be used.
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        let mut url = RegistryUrl::parse(url)?;
        let tls = match url.scheme() {
            "zookeeper" => false,
            "zookeepers" => true,
            _ => {
                return Err(url.invalid("expected zookeeper://HOST:PORT or zookeepers://HOST:PORT"));
            }
        };
        let mut config = Self {
            tls,
            ..Self::default()
        };
        let port = if tls { TLS_PORT } else { PORT };
        config.servers = url.hosts(port)?;
        if config.servers.is_empty() {
            config.servers.push(format!("localhost:{port}"));
        }
        if !matches!(url.path(), "" | "/") {
            let path = url.path().trim_end_matches('/');
            path.clone_into(&mut config.base_path);
        }
        config.credentials = match (url.user(), url.password()) {
            (None, _) => None,
            (Some(user), Some(password)) => Some(format!("{user}:{password}")),
            (Some(_), None) => return Err(url.invalid("a user without a password")),
        };
        if let Some(name) = url.take("layout") {
            let unknown = || {
                url.invalid(format!(
                    "unknown layout {name:?}; expected curator or gokit"
                ))
            };
            config.layout = Layout::named(&name).ok_or_else(unknown)?;
        }
        if let Some(timeout) = url.take_duration("session_timeout")? {
            config.session_timeout = timeout;
        }
        if let Some(name) = url.take("acl") {
            let unknown = || {
                url.invalid(format!(
                    "unknown acl {name:?}; expected open, creator or others-read"
                ))
            };
            config.access = Some(Access::named(&name).ok_or_else(unknown)?);
        }
        [config.ca_file, config.client_cert, config.client_key] = url.take_tls_files(tls)?;
        url.finish(&SETTINGS)?;
        config.check().map_err(|reason| url.invalid(reason))?;
        Ok(config)
    }
}
