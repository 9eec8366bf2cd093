//! The settings of the DNS registry: defaults and the URL.
//!
//! It reads no file and opens no connection.

mod setters;
mod url;

use std::time::Duration;

use super::{name::Name, template::Template};
use crate::{instance::Instance, registry::RegistryError};

/// The port of DNS (RFC 1035).
pub(super) const PORT: u16 = 53;

/// The name, resolvers and limits of the DNS registry.
///
/// ```
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// use std::time::Duration;
///
/// use discovery::registry::dns::{Config, Dns};
///
/// let config = Config::srv("_{service}._tcp.example.com")
///     .with_resolvers(["10.0.0.53:53"])
///     .with_max_refresh(Duration::from_secs(10));
/// let dns = Dns::new(&config)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// The DNS servers as `HOST:PORT`. Each refresh asks the one that answered last, and the others if it
    /// fails. Default: none, which means the nameservers of `/etc/resolv.conf`.
    pub resolvers: Vec<String>,
    /// The name to look up, without the port of [`Records::Addresses`]. `{service}`, `{tag}` and
    /// `{datacenter}` stand for those of the [query](crate::registry::Query). Empty: the service is the
    /// name. It is absolute: search domains do not apply.
    pub name: String,
    /// The kind of records. Default: SRV.
    pub records: Records,
    /// Minimum time between two refreshes, whatever the records' TTL; at least 100 ms. Default: 1 s.
    pub min_refresh: Duration,
    /// Maximum time between two refreshes, whatever the records' TTL; at most 1 h. It also bounds the age
    /// of [`InstanceSet::confirmed`](crate::registry::InstanceSet::confirmed). Default: 30 s.
    pub max_refresh: Duration,
    /// Limit for a connection to a server, and for each answer; 10 ms to 1 min. Default: 2 s. A refresh
    /// from one server takes at most five times as long.
    pub timeout: Duration,
}

/// The kind of records that list the instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Records {
    /// SRV records (RFC 2782): hosts, ports, priorities and weights.
    #[default]
    Srv,
    /// A and AAAA records: the addresses of a name, all with the same port.
    #[non_exhaustive]
    Addresses {
        /// The port of every instance.
        port: u16,
    },
}

impl Config {
    /// The SRV records of `name`, asked for at the system's nameservers.
    pub fn srv(name: impl Into<String>) -> Self {
        Self {
            resolvers: Vec::new(),
            name: name.into(),
            records: Records::Srv,
            min_refresh: Duration::from_secs(1),
            max_refresh: Duration::from_secs(30),
            timeout: Duration::from_secs(2),
        }
    }

    /// The A and AAAA records of `name`, asked for at the system's nameservers. Every instance has this
    /// port.
    pub fn addresses(name: impl Into<String>, port: u16) -> Self {
        Self {
            records: Records::Addresses { port },
            ..Self::srv(name)
        }
    }

    /// The URL, for messages and logs.
    #[must_use]
    pub fn url(&self) -> String {
        let (resolvers, name) = (self.resolvers.join(","), &self.name);
        match self.records {
            Records::Srv if name.is_empty() => format!("dns://{resolvers}"),
            Records::Srv => format!("dns://{resolvers}/{name}"),
            Records::Addresses { port } => format!("dns+a://{resolvers}/{name}:{port}"),
        }
    }

    /// The checked name.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for any value that cannot be used.
    pub(super) fn validate(&self) -> Result<Template, RegistryError> {
        self.check()
            .map_err(|reason| RegistryError::invalid_setting(self.url(), reason))
    }

    fn check(&self) -> Result<Template, String> {
        for resolver in &self.resolvers {
            Instance::parse(resolver).map_err(|error| format!("a resolver: {error}"))?;
        }
        if let Records::Addresses { port } = self.records {
            if port == 0 {
                return Err("the port 0 cannot be connected to".to_owned());
            }
            if self.name.is_empty() {
                return Err("the name is empty; {service} stands for the service".to_owned());
            }
            // As `Instance` tells addresses from names.
            if Name::parse(&self.name).is_ok_and(|name| {
                let last = name.labels().last().unwrap_or_default();
                last.bytes().all(|b| b.is_ascii_digit())
            }) {
                return Err(format!(
                    "{} is an address, not a name; use static://{0}:{port}",
                    self.name
                ));
            }
        }
        in_range("min_refresh", self.min_refresh, 100, 3_600_000)?;
        in_range("max_refresh", self.max_refresh, 100, 3_600_000)?;
        in_range("timeout", self.timeout, 10, 60_000)?;
        if self.max_refresh < self.min_refresh {
            return Err(format!(
                "max_refresh is {:?}, which is less than min_refresh, {:?}",
                self.max_refresh, self.min_refresh
            ));
        }
        Template::parse(&self.name)
    }
}

/// Checks a duration between two limits in milliseconds.
fn in_range(setting: &str, value: Duration, min: u64, max: u64) -> Result<(), String> {
    let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!(
        "{setting} is {value:?}; expected {min:?} to {max:?}"
    ))
}

#[cfg(test)]
mod tests;
