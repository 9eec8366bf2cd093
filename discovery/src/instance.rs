//! One running process of a service: plain data, without connection or history.

mod health;
mod withdrawal;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
};

pub use self::{health::InstanceHealth, withdrawal::Withdrawal};

/// One running process of a service, as a registry describes it.
///
/// The [`id`](Self::id) identifies the process. When another field differs under the same ID, the
/// process was registered again, for example with other tags or at another address.
///
/// ```
/// use discovery::Instance;
///
/// # fn main() -> Result<(), discovery::InvalidInstance> {
/// let instance = Instance::new("10.0.0.1", 8975)?
///     .with_id("trim-1")
///     .with_tags(["blue"])
///     .with_meta([("version", "2")])
///     .with_weight(10)
///     .with_zone("a");
/// assert_eq!(instance.to_string(), "trim-1 (10.0.0.1:8975)");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Instance {
    /// Unique within the service. [`Instance::named`] makes `SERVICE-IP-PORT`.
    pub id: String,
    /// The service's name in the registry.
    pub service: String,
    /// An IP address or a host name, without brackets. Never empty.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// In the registry's order.
    pub tags: Vec<String>,
    /// Key-value pairs without a fixed meaning.
    pub meta: BTreeMap<String, String>,
    /// Share of calls relative to the other instances. Default: 1.
    pub weight: u32,
    /// The failure domain inside a datacenter, if known.
    pub zone: Option<String>,
    /// The datacenter, if the registry has datacenters.
    pub datacenter: Option<String>,
    /// The state of the instance as the registry sees it. Default: unknown.
    pub health: InstanceHealth,
}

impl Instance {
    /// An instance at `host:port` with the ID `host:port` and weight 1. The other fields are empty.
    ///
    /// # Errors
    ///
    /// When `host` is not an IP address or a host name, or `port` is 0.
    pub fn new(host: impl Into<String>, port: u16) -> Result<Self, InvalidInstance> {
        let instance = Self {
            id: String::new(),
            service: String::new(),
            host: host.into(),
            port,
            tags: Vec::new(),
            meta: BTreeMap::new(),
            weight: 1,
            zone: None,
            datacenter: None,
            health: InstanceHealth::Unknown,
        };
        instance.validate()?;
        let id = instance.authority();
        Ok(instance.with_id(id))
    }

    /// The instance of `service` at `ip:port`, with the ID `SERVICE-IP-PORT`.
    ///
    /// ```
    /// # fn main() -> Result<(), discovery::InvalidInstance> {
    /// let instance = discovery::Instance::named("trim_service", [127, 0, 0, 1].into(), 8975)?;
    /// assert_eq!(instance.id, "trim_service-127.0.0.1-8975");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When `port` is 0, or when `ip` does not name a single host, as `0.0.0.0` does not.
    pub fn named(service: &str, ip: IpAddr, port: u16) -> Result<Self, InvalidInstance> {
        Ok(Self::new(ip.to_string(), port)?
            .with_id(format!("{service}-{ip}-{port}"))
            .with_service(service))
    }

    /// Sets [`id`](Self::id).
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets [`service`](Self::service).
    #[must_use]
    pub fn with_service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// Sets [`tags`](Self::tags).
    #[must_use]
    pub fn with_tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`meta`](Self::meta).
    #[must_use]
    pub fn with_meta<K, V>(mut self, meta: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<String>,
    {
        let pairs = meta
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()));
        self.meta = pairs.collect();
        self
    }

    /// Sets [`weight`](Self::weight).
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets [`zone`](Self::zone).
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets [`datacenter`](Self::datacenter).
    #[must_use]
    pub fn with_datacenter(mut self, datacenter: impl Into<String>) -> Self {
        self.datacenter = Some(datacenter.into());
        self
    }

    /// Sets [`health`](Self::health).
    #[must_use]
    pub fn with_health(mut self, health: InstanceHealth) -> Self {
        self.health = health;
        self
    }

    /// Reads `HOST:PORT`, with brackets around an IPv6 address.
    ///
    /// # Errors
    ///
    /// When the text has another form, or its host or port cannot be connected to.
    pub fn parse(host_port: &str) -> Result<Self, InvalidInstance> {
        let invalid = |reason| InvalidInstance {
            address: host_port.to_owned(),
            reason,
        };
        let malformed = || invalid("expected HOST:PORT, with an IPv6 address in brackets");
        let (host, port) = host_port.rsplit_once(':').ok_or_else(malformed)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(malformed)?,
            None if host.contains(':') => return Err(malformed()),
            None => host,
        };
        // `parse` alone accepts a leading plus sign.
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        let port = port.parse().map_err(|_| malformed())?;
        Self::new(host, port).map_err(|error| invalid(error.reason))
    }

    /// `host:port` as in a URL: with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Checks that a client can connect to the address.
    ///
    /// # Errors
    ///
    /// When the host is empty, is neither an IP address nor a host name, or does not name a single
    /// host (`0.0.0.0`), or when the port is 0.
    pub fn validate(&self) -> Result<(), InvalidInstance> {
        let reason = if self.host.is_empty() {
            "the host is empty"
        } else if self.port == 0 {
            "port 0 cannot be connected to"
        } else if let Ok(ip) = self.host.parse::<IpAddr>() {
            if ip.is_unspecified() {
                "an unspecified address does not name a host"
            } else if ip.is_multicast() {
                "a multicast address does not name a single host"
            } else {
                return Ok(());
            }
        } else if is_host_name(&self.host) {
            return Ok(());
        } else {
            "the host is neither an IP address nor a host name"
        };
        Err(InvalidInstance {
            address: format!("{}:{}", self.host, self.port),
            reason,
        })
    }
}

/// RFC 1123, plus the underscore that Docker and Windows use in names.
fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let all_numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    name.len() <= 253 && !all_numeric && name.split('.').all(label)
}

impl fmt::Display for Instance {
    /// The ID, followed by the address unless the ID is the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.authority();
        if self.id == authority {
            f.write_str(&self.id)
        } else {
            write!(f, "{} ({authority})", self.id)
        }
    }
}

/// An address that no client can connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid instance address {address:?}: {reason}")]
pub struct InvalidInstance {
    address: String,
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_and_port() {
        for (text, host, port) in [
            ("127.0.0.1:80", "127.0.0.1", 80),
            ("[::1]:65535", "::1", 65535),
            ("trim_service.local:8975", "trim_service.local", 8975),
        ] {
            let instance = Instance::parse(text).unwrap();
            assert_eq!((instance.host.as_str(), instance.port), (host, port));
            assert_eq!(instance.authority(), text);
            assert_eq!(instance.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_cannot_be_connected_to() {
        for text in [
            "",
            ":80",
            "host",
            "host:",
            "host:0",
            "host:70000",
            "host:-1",
            "host:+80",
            "::1:80",
            "[::1:80",
            "[]:80",
            "0.0.0.0:80",
            "[::]:80",
            "224.0.0.1:80",
            "999.0.0.1:80",
            "a b:80",
            "-a:80",
            "a..b:80",
            "http://a:80",
        ] {
            let error = Instance::parse(text).unwrap_err().to_string();
            let address = format!("invalid instance address {text:?}: ");
            assert!(error.starts_with(&address), "{error}");
        }
    }

    #[test]
    fn shows_the_address_where_the_id_hides_it() {
        let instance = Instance::parse("10.0.0.1:80").unwrap().with_id("a");
        assert_eq!(instance.to_string(), "a (10.0.0.1:80)");
    }
}
