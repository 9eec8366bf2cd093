//! The settings of the Consul registry: defaults, Consul's environment variables, the URL.
//!
//! It reads no file and opens no connection; [`Consul::new`](super::Consul::new) does.

mod address;
mod datacenters;
mod env;
mod setters;

use std::{fmt, path::PathBuf, time::Duration};

use self::address::{host_and_port, path};
pub(super) use self::datacenters::datacenters;
use crate::registry::{
    RegistryError,
    checks::{check_times, check_tls},
};

/// The address, credentials and limits of a Consul agent or cluster.
///
/// ```
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// use discovery::registry::consul::{Config, Consul};
///
/// let config = Config::new("127.0.0.1:8500").with_datacenter("dc1");
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
    /// The path of Consul's API before `/v1`, where Consul is behind a proxy: `/consul`, for example.
    /// Default: empty. From the path in `CONSUL_HTTP_ADDR`.
    pub path: String,
    /// True for HTTPS instead of HTTP. Default: false. From `CONSUL_HTTP_SSL`, or `https://` in
    /// `CONSUL_HTTP_ADDR`.
    pub tls: bool,
    /// The ACL token, sent with every request. Default: none. From `CONSUL_HTTP_TOKEN`.
    pub token: Option<String>,
    /// A file with the ACL token. It overrides [`token`](Self::token), as in Consul's own tools.
    /// Default: none. From `CONSUL_HTTP_TOKEN_FILE`.
    pub token_file: Option<PathBuf>,
    /// `USER:PASSWORD` for HTTP basic authentication, for a proxy in front of Consul. Default: none.
    /// From `CONSUL_HTTP_AUTH`.
    pub http_auth: Option<String>,
    /// The namespace of registrations and queries (Consul Enterprise). Default: the token's own.
    /// From `CONSUL_NAMESPACE`.
    pub namespace: Option<String>,
    /// The datacenter of queries, or several in order of preference, separated by commas. Default: the
    /// agent's own. A registration always goes to the agent's own.
    ///
    /// The instances of several datacenters are listed together. Those of all but the first have the
    /// ID `ID@DATACENTER`. A channel calls the first datacenter that has working instances, unless
    /// [`Locality`](crate::Locality) says otherwise.
    pub datacenter: Option<String>,
    /// An expression that every listed instance fulfils, in Consul's filter language, for example
    /// `Service.Meta.version == "2"`. Consul evaluates it. Default: none.
    pub filter: Option<String>,
    /// True if the service's name in queries is the name or ID of a prepared query. Consul cannot hold
    /// such a query back, so it is executed every 2 s, and it leaves critical instances out. Default:
    /// false.
    pub prepared: bool,
    /// PEM file of the trusted certificate authorities. Default: the system's. From
    /// `CONSUL_CACERT`.
    pub ca_file: Option<PathBuf>,
    /// Folder of such PEM files; all of them are trusted. [`ca_file`](Self::ca_file) overrides it,
    /// as in Consul's own tools. From `CONSUL_CAPATH`.
    pub ca_path: Option<PathBuf>,
    /// PEM file of the client certificate and its chain. Needs [`client_key`](Self::client_key).
    /// From `CONSUL_CLIENT_CERT`.
    pub client_cert: Option<PathBuf>,
    /// PEM file of the client certificate's key. From `CONSUL_CLIENT_KEY`.
    pub client_key: Option<PathBuf>,
    /// The name in the server's certificate. Default: the host in
    /// [`address`](Self::address). From `CONSUL_TLS_SERVER_NAME`.
    pub tls_server_name: Option<String>,
    /// True if the server's certificate is verified. Default: true. If false, an attacker on the
    /// network can impersonate Consul and read the token. From `CONSUL_HTTP_SSL_VERIFY`.
    pub tls_verify: bool,
    /// Time limit for a new connection, TLS included. Default: 2 s, because a lost first packet is
    /// sent again after 1 s.
    pub connect_timeout: Duration,
    /// Time limit for an answer that Consul gives at once. Default: 10 s, because Consul holds
    /// requests for about 7 s while it elects a leader.
    pub request_timeout: Duration,
    /// The time that Consul may hold a watch's request when nothing changes. Default: 55 s; range:
    /// 1 s to 10 min. An unchanged service costs Consul one request per watch in this time. A Consul
    /// that hangs with open connections is found about 5 s after this time.
    ///
    /// It bounds the age of [`InstanceSet::confirmed`](super::super::InstanceSet::confirmed) while
    /// Consul answers: this time, a sixteenth of it, and 5 s; 64 s by default.
    pub wait: Duration,
    /// The time between two answers of a watch while instances keep changing. Default: 500 ms. The
    /// first few changes after a quiet time are published at once.
    pub change_interval: Duration,
    /// Size limit of one answer in bytes, after decompression. Default: 64 MiB. 5000 instances take
    /// about 8 MiB.
    pub body_limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: "localhost:8500".to_owned(),
            path: String::new(),
            tls: false,
            token: None,
            token_file: None,
            http_auth: None,
            namespace: None,
            datacenter: None,
            filter: None,
            prepared: false,
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
    /// The URL without credentials, for messages and logs.
    #[must_use]
    pub fn name(&self) -> String {
        if self.socket().is_some() {
            return self.address.clone();
        }
        let scheme = if self.tls { "consuls" } else { "consul" };
        format!("{scheme}://{}{}", self.address, self.path)
    }

    /// The path of the socket, if [`address`](Self::address) is one.
    pub(super) fn socket(&self) -> Option<&str> {
        self.address.strip_prefix("unix://").filter(|_| cfg!(unix))
    }

    pub(super) fn validate(&self) -> Result<(), RegistryError> {
        let wrong = |reason: &str| RegistryError::invalid_setting(self.name(), reason);
        let address = match self.socket() {
            Some(path) => path.starts_with('/') && !self.tls,
            None => host_and_port(&self.address, 8500).as_ref() == Ok(&self.address),
        };
        if !address {
            return Err(wrong(
                "the address must be HOST:PORT, or unix:///PATH without TLS",
            ));
        }
        path(&self.path).map_err(wrong)?;
        if let Some(names) = &self.datacenter {
            datacenters(names).map_err(|reason| wrong(&reason))?;
        }
        if self.filter.is_some() && self.prepared {
            return Err(wrong(
                "a prepared query takes no filter; write the filter into the query's definition",
            ));
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err(wrong(
                "a client certificate (CONSUL_CLIENT_CERT) and its key (CONSUL_CLIENT_KEY) must both be given",
            ));
        }
        check_tls(self.tls).map_err(|reason| wrong(&reason))?;
        let second = Duration::from_secs(1);
        if !(second..=600 * second).contains(&self.wait) {
            let wait = self.wait;
            return Err(wrong(&format!("wait is {wait:?}, expected 1 s to 10 min")));
        }
        check_times(&[
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("change_interval", self.change_interval),
        ])
        .map_err(|reason| wrong(&reason))
    }
}

impl fmt::Debug for Config {
    /// The fields that identify the Consul, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name())
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("token_file", &self.token_file)
            .field("http_auth", &self.http_auth.as_ref().map(|_| "..."))
            .field("namespace", &self.namespace)
            .field("datacenter", &self.datacenter)
            .field("filter", &self.filter)
            .field("prepared", &self.prepared)
            .field("ca_file", &self.ca_file)
            .field("ca_path", &self.ca_path)
            .field("client_cert", &self.client_cert)
            .field("tls_server_name", &self.tls_server_name)
            .field("tls_verify", &self.tls_verify)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
