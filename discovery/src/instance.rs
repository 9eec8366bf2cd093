//! What a registry knows of one running process: plain data, no connection, no history.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// One running process that offers a service.
///
/// Two values are the same process when their [`id`](Self::id) is the same; when the rest differs,
/// the process was registered anew (another address, other tags).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Unique within the service. `name-ip-port` for what [`Instance::named`] makes.
    pub id: String,
    /// The name the service is looked up by.
    pub service: String,
    /// An IP address or a host name, without brackets. Never empty.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// In the registry's order.
    pub tags: Vec<String>,
    /// Free key-value pairs.
    pub meta: BTreeMap<String, String>,
    /// Share of calls relative to the other instances; 1 where the registry says nothing.
    pub weight: u32,
    /// The failure domain inside a datacenter, where known.
    pub zone: Option<String>,
    /// The datacenter, where the registry has such a notion.
    pub datacenter: Option<String>,
}

impl Instance {
    /// An instance at `host:port` with the ID `host:port`, weight 1 and nothing else set.
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
        };
        instance.validate()?;
        Ok(Self {
            id: instance.authority(),
            ..instance
        })
    }

    /// The instance of `service` at `ip:port`, under the ID `service-ip-port`.
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
    /// When `port` is 0.
    pub fn named(service: &str, ip: IpAddr, port: u16) -> Result<Self, InvalidInstance> {
        Ok(Self {
            id: format!("{service}-{ip}-{port}"),
            service: service.to_owned(),
            ..Self::new(ip.to_string(), port)?
        })
    }

    /// Reads `HOST:PORT`, with brackets around an IPv6 address.
    ///
    /// # Errors
    ///
    /// When the text has another form, or names no usable host or port.
    pub fn parse(host_port: &str) -> Result<Self, InvalidInstance> {
        let malformed = || InvalidInstance {
            address: host_port.to_owned(),
            reason: "expected HOST:PORT, with an IPv6 address in brackets",
        };
        let (host, port) = host_port.rsplit_once(':').ok_or_else(malformed)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(malformed)?,
            None if host.contains(':') => return Err(malformed()),
            None => host,
        };
        // `parse` alone would take a leading plus sign.
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        let port = port.parse().map_err(|_| malformed())?;
        Self::new(host, port)
    }

    /// `host:port` as URLs write it: an IPv6 address stands in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether a client can connect to it as it stands.
    ///
    /// # Errors
    ///
    /// The first thing wrong with its address: no host, one that is neither an address nor a name,
    /// an address that names no single host (`0.0.0.0`), or port 0.
    pub fn validate(&self) -> Result<(), InvalidInstance> {
        let reason = if self.host.is_empty() {
            "the host is empty"
        } else if self.port == 0 {
            "port 0 cannot be connected to"
        } else if let Ok(ip) = self.host.parse::<IpAddr>() {
            if ip.is_unspecified() {
                "an unspecified address names no host"
            } else if ip.is_multicast() {
                "a multicast address names no single host"
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

/// RFC 1123, and the underscore that Docker and Windows put into names.
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
    /// The ID, with the address behind it where the ID does not hold it.
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
            assert!(Instance::parse(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn shows_the_address_where_the_id_hides_it() {
        let mut instance = Instance::parse("10.0.0.1:80").unwrap();
        instance.id = "a".to_owned();
        assert_eq!(instance.to_string(), "a (10.0.0.1:80)");
    }
}
