//! The settings of the ZooKeeper registry: defaults and the URL.
//!
//! It reads no file and opens no connection; [`ZooKeeper::new`](super::ZooKeeper::new) does.

mod setters;
mod url;

use std::{fmt, path::PathBuf, time::Duration};

use super::{layout::Layout, path, protocol::Access};
use crate::{instance::Instance, registry::RegistryError};

/// The servers, credentials and limits of a ZooKeeper.
///
/// ```
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// use discovery::registry::zookeeper::{Config, Layout, ZooKeeper};
///
/// let config = Config::new(["10.0.0.1:2181", "10.0.0.2:2181"]).with_layout(Layout::GoKit);
/// let zookeeper = ZooKeeper::new(&config)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// The servers as `HOST:PORT`. Default: `localhost:2181`.
    pub servers: Vec<String>,
    /// The node above those of the services. Default: `/services`, as Spring Cloud's.
    pub base_path: String,
    /// The form of the services' nodes. Default: [`Layout::Curator`].
    pub layout: Layout,
    /// `USER:PASSWORD` of the digest authentication. Default: none.
    pub credentials: Option<String>,
    /// The access rights of the nodes that a registration creates. Default: [`Access::Creator`] with
    /// credentials, [`Access::Open`] without, as other clients do.
    pub access: Option<Access>,
    /// The time after which ZooKeeper removes the instance of a killed process, unless the
    /// registration has a TTL. Default: 10 s. The server keeps it between 2 and 20 of its ticks, which
    /// is 4 s to 40 s by its defaults.
    ///
    /// A server without an answer for two thirds of this time is replaced by another.
    pub session_timeout: Duration,
    /// True for TLS, on the server's `secureClientPort`. Default: false. The other settings of TLS have
    /// no effect without it.
    pub tls: bool,
    /// PEM file of the trusted certificate authorities. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate and its chain. Needs [`client_key`](Self::client_key).
    /// ZooKeeper requires one unless `ssl.clientAuth=none`.
    pub client_cert: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub client_key: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: vec!["localhost:2181".to_owned()],
            base_path: "/services".to_owned(),
            layout: Layout::default(),
            credentials: None,
            access: None,
            session_timeout: Duration::from_secs(10),
            tls: false,
            ca_file: None,
            client_cert: None,
            client_key: None,
        }
    }
}

impl Config {
    /// The URL without credentials, for messages and logs.
    #[must_use]
    pub fn name(&self) -> String {
        let scheme = if self.tls { "zookeepers" } else { "zookeeper" };
        let layout = match self.layout {
            Layout::Curator => "",
            Layout::GoKit => "?layout=gokit",
        };
        let (servers, path) = (self.servers.join(","), &self.base_path);
        format!("{scheme}://{servers}{path}{layout}")
    }

    /// The access rights of new nodes.
    pub(super) fn rights(&self) -> Access {
        self.access.unwrap_or(match self.credentials {
            Some(_) => Access::Creator,
            None => Access::Open,
        })
    }

    /// The servers' hosts and ports, and the base path as it is used.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for any value that cannot be used.
    pub(super) fn validate(&self) -> Result<(Vec<(String, u16)>, String), RegistryError> {
        self.check()
            .map_err(|reason| RegistryError::invalid_setting(self.name(), reason))
    }

    fn check(&self) -> Result<(Vec<(String, u16)>, String), String> {
        if self.servers.is_empty() {
            return Err("no server is given".to_owned());
        }
        let servers = self.servers.iter().map(|server| {
            let parsed = Instance::parse(server).map_err(|error| format!("a server: {error}"))?;
            Ok((parsed.host, parsed.port))
        });
        let servers = servers.collect::<Result<_, String>>()?;
        let base_path = path::base(&self.base_path)
            .map_err(|reason| format!("the base path {:?} {reason}", self.base_path))?;
        match &self.credentials {
            Some(both) if !both.contains(':') => {
                return Err("the credentials are not USER:PASSWORD".to_owned());
            }
            None if self.access.is_some_and(|access| access != Access::Open) => {
                return Err("access rights of the creator need a user and a password".to_owned());
            }
            _ => {}
        }
        check_timeout(self.session_timeout)?;
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err("a client certificate and its key are given together".to_owned());
        }
        Ok((servers, base_path))
    }
}

/// Checks the wish for a session's timeout.
pub(super) fn check_timeout(timeout: Duration) -> Result<(), String> {
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&timeout) {
        return Ok(());
    }
    Err(format!(
        "the session timeout {timeout:?} is outside 100ms to 1h"
    ))
}

impl fmt::Debug for Config {
    /// Leaves out the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("servers", &self.servers)
            .field("base_path", &self.base_path)
            .field("layout", &self.layout)
            .field("credentials", &self.credentials.is_some())
            .field("access", &self.access)
            .field("session_timeout", &self.session_timeout)
            .field("tls", &self.tls)
            .field("ca_file", &self.ca_file)
            .field("client_cert", &self.client_cert)
            .field("client_key", &self.client_key)
            .finish()
    }
}

#[cfg(test)]
mod tests;
