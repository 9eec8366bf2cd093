//! The settings of the Eureka registry: defaults, Spring's environment variable, the URL.
//!
//! It reads no file and opens no connection.

mod setters;
mod url;

use std::{fmt, path::PathBuf, time::Duration};

use crate::{
    instance::Instance,
    registry::{
        RegistryError,
        checks::{check_times, check_tls},
    },
};

/// The shortest and the longest lease. Eureka counts a lease in whole seconds, and twice.
const LEASES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(24 * 3600)];

/// The peers, credentials and limits of a Eureka.
///
/// ```
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// use std::time::Duration;
///
/// use discovery::registry::eureka::{Config, Eureka};
///
/// let config = Config::new(["10.0.0.1:8761", "10.0.0.2:8761"]).with_interval(Duration::from_secs(5));
/// let eureka = Eureka::new(&config)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// The peers as `HOST:PORT`. The last one that answered is asked first, the others in turn if it
    /// fails. Default: `localhost:8761`.
    pub servers: Vec<String>,
    /// The path of the peers' REST API, without a slash at its end. Default: `/eureka`, as Spring
    /// Cloud's. Netflix's own server has `/eureka/v2`.
    pub base_path: String,
    /// True for HTTPS. Default: false. The other settings of TLS have no effect without it.
    pub tls: bool,
    /// The user of HTTP Basic authentication. Needs [`password`](Self::password). Default: none.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// PEM file of the trusted certificate authorities. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate and its chain. Needs [`client_key`](Self::client_key).
    pub client_cert: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub client_key: Option<PathBuf>,
    /// True if a query's service is a VIP address, which several applications may have. Default: false:
    /// it is the name of an application. Eureka ignores the case of applications' names, but not that of
    /// VIP addresses.
    pub vip: bool,
    /// The time between two requests of a watch, before jitter of a tenth. Default: 2 s; range: 100 ms to
    /// 10 min. While Eureka answers, it bounds the age of
    /// [`InstanceSet::confirmed`](super::super::InstanceSet::confirmed), together with the time of an
    /// answer. Eureka has no long poll; each request costs it one answer from its cache.
    pub interval: Duration,
    /// The time after which Eureka may remove the instance of a killed process, unless the registration
    /// has a TTL. Default: 30 s; range: 2 s to 24 h. A renewal is sent three times in it.
    pub lease: Duration,
    /// Time limit for a new connection, TLS included. Default: 2 s, because a lost first packet is sent
    /// again after 1 s.
    pub connect_timeout: Duration,
    /// Time limit for an answer of one peer. Default: 5 s. A peer that hangs with open connections is
    /// found after this time.
    pub request_timeout: Duration,
    /// Size limit of one answer in bytes, after decompression. Default: 64 MiB. 5000 instances take about
    /// 4 MiB.
    pub body_limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: vec!["localhost:8761".to_owned()],
            base_path: "/eureka".to_owned(),
            tls: false,
            user: None,
            password: None,
            ca_file: None,
            client_cert: None,
            client_key: None,
            vip: false,
            interval: Duration::from_secs(2),
            lease: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            body_limit: 64 << 20,
        }
    }
}

impl Config {
    /// The URL without credentials, for messages and logs.
    #[must_use]
    pub fn name(&self) -> String {
        let vip = if self.vip { "?vip=true" } else { "" };
        format!("{}{vip}", self.name_of(&self.servers.join(",")))
    }

    /// The URL of one peer, for messages and logs.
    pub(super) fn name_of(&self, server: &str) -> String {
        let scheme = if self.tls { "eurekas" } else { "eureka" };
        format!("{scheme}://{server}{}", self.base_path)
    }

    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for any value that cannot be used.
    pub(super) fn validate(&self) -> Result<(), RegistryError> {
        self.check()
            .map_err(|reason| RegistryError::invalid_setting(self.name(), reason))
    }

    fn check(&self) -> Result<(), String> {
        if self.servers.is_empty() {
            return Err("no server is given".to_owned());
        }
        for server in &self.servers {
            Instance::parse(server).map_err(|error| format!("a server: {error}"))?;
        }
        check_path(&self.base_path)?;
        if self.user.is_some() != self.password.is_some() {
            return Err("a user and a password are given together".to_owned());
        }
        if self.user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err("the user's name contains a colon".to_owned());
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err("a client certificate and its key are given together".to_owned());
        }
        check_tls(self.tls)?;
        let range = Duration::from_millis(100)..=Duration::from_secs(600);
        if !range.contains(&self.interval) {
            let interval = self.interval;
            return Err(format!("interval is {interval:?}, expected 100ms to 10min"));
        }
        check_lease("lease", self.lease)?;
        check_times(&[
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
        ])
    }
}

/// Checks the time of a lease, which `what` names.
pub(super) fn check_lease(what: &str, lease: Duration) -> Result<(), String> {
    let [shortest, longest] = LEASES;
    if (shortest..=longest).contains(&lease) {
        return Ok(());
    }
    Err(format!("{what} is {lease:?}, expected 2s to 24h"))
}

/// Checks a path before `/apps`: empty, or with a slash at its start and none at its end.
fn check_path(path: &str) -> Result<(), String> {
    let wrong = |part: &str| {
        matches!(part, "" | "." | "..")
            || part.contains(['\\', ','])
            || part.contains(char::is_control)
    };
    match path.strip_prefix('/') {
        None if path.is_empty() => Ok(()),
        None => Err(format!("the path {path:?} does not begin with a slash")),
        Some(rest) if rest.split('/').any(wrong) => Err(format!(
            "the path {path:?} has a part that is empty, `.`, `..`, or has a backslash, comma or control \
             character"
        )),
        Some(_) => Ok(()),
    }
}

impl fmt::Debug for Config {
    /// Leaves out the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("servers", &self.servers)
            .field("base_path", &self.base_path)
            .field("tls", &self.tls)
            .field("credentials", &self.user.is_some())
            .field("ca_file", &self.ca_file)
            .field("client_cert", &self.client_cert)
            .field("client_key", &self.client_key)
            .field("vip", &self.vip)
            .field("interval", &self.interval)
            .field("lease", &self.lease)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("body_limit", &self.body_limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
