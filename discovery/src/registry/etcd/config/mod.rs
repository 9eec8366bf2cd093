//! The settings of the etcd registry: defaults, etcdctl's environment variables, the URL.
//!
//! It reads no file and opens no connection.

mod env;
mod go_duration;
mod setters;

use std::{fmt, path::PathBuf, time::Duration};

use super::layout::Layout;
use crate::{
    instance::Instance,
    registry::{
        RegistryError,
        checks::{check_times, check_tls},
    },
};

/// The members, credentials, layout and limits of an etcd cluster.
///
/// ```
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// use discovery::registry::etcd::{Config, Etcd, Layout};
///
/// let config = Config::new(["10.0.0.1:2379", "10.0.0.2:2379"]).with_layout(Layout::Grpc);
/// let etcd = Etcd::new(&config)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The members' `HOST:PORT`. One connection is used at a time; when it fails, the next member is
    /// tried. Default: `127.0.0.1:2379`. From `ETCDCTL_ENDPOINTS`.
    pub endpoints: Vec<String>,
    /// True for TLS. Default: false. From `https://` in `ETCDCTL_ENDPOINTS`, from a certificate
    /// variable, or from `ETCDCTL_INSECURE_TRANSPORT=false`.
    pub tls: bool,
    /// The user. Needs [`password`](Self::password). Default: none. From `ETCDCTL_USER`.
    pub user: Option<String>,
    /// The user's password. From `ETCDCTL_PASSWORD`, or after a colon in `ETCDCTL_USER`.
    pub password: Option<String>,
    /// A token that was issued elsewhere (JWT), in place of a user. Default: none. From
    /// `ETCDCTL_AUTH_JWT_TOKEN`.
    pub token: Option<String>,
    /// PEM file of the trusted certificate authorities. Default: the system's. From
    /// `ETCDCTL_CACERT`.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate and its chain. Needs [`client_key`](Self::client_key). From
    /// `ETCDCTL_CERT`.
    pub client_cert: Option<PathBuf>,
    /// PEM file of the client certificate's key. From `ETCDCTL_KEY`.
    pub client_key: Option<PathBuf>,
    /// The name in the servers' certificates. Default: the host of the member.
    pub tls_server_name: Option<String>,
    /// True if the servers' certificates are verified. Default: true. If false, an attacker on the
    /// network can impersonate etcd and read the password. From `ETCDCTL_INSECURE_SKIP_TLS_VERIFY`.
    pub tls_verify: bool,
    /// The part of the keys before the service name. Default: that of the layout.
    pub prefix: Option<String>,
    /// The form of the entries that this client registers. Default: [`Layout::GoKit`]. A watch reads
    /// the entries of every layout under its prefix.
    pub layout: Layout,
    /// Time limit for a new connection to one member, TLS included. Default: 2 s, as in etcdctl. From
    /// `ETCDCTL_DIAL_TIMEOUT`.
    pub connect_timeout: Duration,
    /// Time limit for an answer. Default: 5 s, as in etcdctl. From `ETCDCTL_COMMAND_TIMEOUT`.
    pub request_timeout: Duration,
    /// A watch asks for a sign of life after this time without one. Default: 5 s. A server that hangs
    /// with open connections is found [`request_timeout`](Self::request_timeout) after it.
    pub confirm_interval: Duration,
    /// The time between two sets of a watch while instances keep changing. Default: 500 ms. The first
    /// few changes after a quiet time are published at once.
    pub change_interval: Duration,
    /// Size limit of one answer in bytes. Default: 64 MiB. 5000 instances take about 1 MiB.
    pub message_limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            tls: false,
            user: None,
            password: None,
            token: None,
            ca_file: None,
            client_cert: None,
            client_key: None,
            tls_server_name: None,
            tls_verify: true,
            prefix: None,
            layout: Layout::default(),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            confirm_interval: Duration::from_secs(5),
            change_interval: Duration::from_millis(500),
            message_limit: 64 << 20,
        }
    }
}

impl Config {
    /// The URL without credentials, for messages and logs.
    #[must_use]
    pub fn name(&self) -> String {
        let scheme = if self.tls { "etcds" } else { "etcd" };
        let prefix = self.key_prefix();
        let separator = if prefix.starts_with('/') { "" } else { "/" };
        format!("{scheme}://{}{separator}{prefix}", self.endpoints.join(","))
    }

    /// The part of the keys before the service name, without a slash at its end.
    #[must_use]
    pub fn key_prefix(&self) -> &str {
        let prefix = self.prefix.as_deref();
        prefix.unwrap_or(self.layout.default_prefix())
    }

    pub(super) fn validate(&self) -> Result<(), RegistryError> {
        let wrong = |reason: &str| RegistryError::invalid_setting(self.name(), reason);
        if self.endpoints.is_empty() {
            return Err(wrong("no endpoint is given; set ETCDCTL_ENDPOINTS"));
        }
        for endpoint in &self.endpoints {
            Instance::parse(endpoint)?;
        }
        match (&self.user, &self.password, &self.token) {
            (Some(_), None, _) => {
                return Err(wrong("a user without a password; set ETCDCTL_PASSWORD"));
            }
            (Some(_), Some(_), Some(_)) => {
                return Err(wrong(
                    "a user (ETCDCTL_USER) and a token (ETCDCTL_AUTH_JWT_TOKEN) cannot both be given",
                ));
            }
            _ => {}
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err(wrong(
                "a client certificate (ETCDCTL_CERT) and its key (ETCDCTL_KEY) must both be given",
            ));
        }
        check_tls(self.tls).map_err(|reason| wrong(&reason))?;
        let prefix = self.key_prefix();
        if prefix.is_empty() || prefix.ends_with('/') || prefix.chars().any(char::is_control) {
            return Err(wrong(&format!(
                "the prefix is {prefix:?}, expected a text without a slash at its end"
            )));
        }
        check_times(&[
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("confirm_interval", self.confirm_interval),
            ("change_interval", self.change_interval),
        ])
        .map_err(|reason| wrong(&reason))
    }
}

impl fmt::Debug for Config {
    /// The fields that identify the cluster, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name())
            .field("layout", &self.layout)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("ca_file", &self.ca_file)
            .field("client_cert", &self.client_cert)
            .field("tls_server_name", &self.tls_server_name)
            .field("tls_verify", &self.tls_verify)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
