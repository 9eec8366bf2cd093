//! The protocol of each kind of registry.

use super::sniff::ProbeResult;

/// The protocol of a kind of registry, its default port and its credentials.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    /// The registry's own name.
    pub(super) product: &'static str,
    /// Its default port.
    pub(super) port: u16,
    pub(super) is_tls: bool,
    /// HTTP/1; otherwise HTTP/2 (etcd) or a protocol of its own (ZooKeeper).
    pub(super) is_http1: bool,
    is_http2: bool,
    /// The scheme with TLS, or without if this one has it.
    pub(super) other: &'static str,
    /// The remedy for refused credentials.
    pub(super) credentials: &'static str,
}

impl Wire {
    /// The one of a URL's scheme. `None` for registries without a TCP server.
    pub(super) fn of(scheme: &str) -> Option<Self> {
        let (kind, is_tls) = match scheme.strip_suffix('s') {
            Some(kind) if ["consul", "etcd", "zookeeper", "eureka"].contains(&kind) => (kind, true),
            _ => (scheme, false),
        };
        let wire = |product, port, other: [&'static str; 2], credentials| Self {
            product,
            port,
            is_tls,
            is_http1: ["consul", "eureka"].contains(&kind),
            is_http2: kind == "etcd",
            other: other[usize::from(!is_tls)],
            credentials,
        };
        Some(match kind {
            "consul" => wire(
                "Consul",
                if is_tls { 8501 } else { 8500 },
                ["consul", "consuls"],
                "set CONSUL_HTTP_TOKEN (or CONSUL_HTTP_TOKEN_FILE) to a token whose policy has \
                 service:read for this service and node:read",
            ),
            "etcd" => wire(
                "etcd",
                2379,
                ["etcd", "etcds"],
                "give a user who may read the prefix: etcd://USER:PASSWORD@HOST:PORT, or \
                 ETCDCTL_USER=USER:PASSWORD",
            ),
            "zookeeper" => wire(
                "ZooKeeper",
                2181,
                ["zookeeper", "zookeepers"],
                "give a user who may read the path: zookeeper://USER:PASSWORD@HOST:PORT",
            ),
            "eureka" => wire(
                "Eureka",
                8761,
                ["eureka", "eurekas"],
                "give a user and a password: eureka://USER:PASSWORD@HOST:PORT",
            ),
            _ => return None,
        })
    }

    /// The same kind of registry without TLS.
    pub(super) fn without_tls(self) -> Self {
        Self {
            is_tls: false,
            ..self
        }
    }

    /// True if a server of this kind may have this protocol.
    pub(super) fn fits(self, found: &ProbeResult) -> bool {
        match found {
            ProbeResult::Http1 { .. } => self.is_http1 && !self.is_tls,
            ProbeResult::Http2 => self.is_http2 && !self.is_tls,
            ProbeResult::Tls { .. } => self.is_tls,
            // ZooKeeper closes a connection that begins with something else.
            ProbeResult::Silent | ProbeResult::Other(_) => !self.is_http1 && !self.is_http2,
            ProbeResult::Refused | ProbeResult::NoSuchHost(_) | ProbeResult::Unreachable(_) => {
                false
            }
        }
    }
}
