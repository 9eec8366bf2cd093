//! The forms of entries: how an instance is written as a key and a value, and read from them.

mod gokit;
mod grpc;

use crate::instance::Instance;

/// The form of the entries that a client registers.
///
/// | | `gokit` | `grpc` |
/// |---|---|---|
/// | written by | Go kit's `sd/etcdv3` | etcd's Go package `client/v3/naming/endpoints` |
/// | key | `PREFIX/NAME/HOST:PORT` | `PREFIX/NAME/HOST:PORT` |
/// | value | `HOST:PORT` | `{"Op":0,"Addr":"HOST:PORT","Metadata":{...}}` |
/// | default prefix | `/services` | `services` |
/// | tags, metadata, weight, zone, datacenter | cannot be registered | in `Metadata` |
/// | ID | not kept: `NAME-HOST-PORT` | in `Metadata` |
///
/// A watch reads the values of both, whatever its own layout, from all keys that begin with
/// `PREFIX/NAME/`. The layout decides how the URL's path is read, as each one's users write it:
/// `etcd://HOST/services` is the prefix `/services` for `gokit`, and `services` for `grpc`, whose Go
/// resolver finds it as `etcd:///services/NAME`. A second slash keeps the first:
/// `etcd://HOST//services?layout=grpc` is the prefix `/services`.
///
/// In `Metadata`, the keys `id`, `tags` (a list), `weight` (a number), `zone` and `datacenter` have a
/// meaning. Every other key is one of the instance's metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// Go kit's: an address only. The default.
    #[default]
    GoKit,
    /// etcd's own for gRPC: JSON with metadata.
    Grpc,
}

impl Layout {
    /// The layout of this name in a URL.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "gokit" => Some(Self::GoKit),
            "grpc" => Some(Self::Grpc),
            _ => None,
        }
    }

    pub(super) fn default_prefix(self) -> &'static str {
        match self {
            Self::GoKit => "/services",
            Self::Grpc => "services",
        }
    }

    /// The prefix that a URL's path names. `None` for an empty path.
    pub(super) fn prefix_of(self, path: &str) -> Option<String> {
        let path = path.trim_end_matches('/');
        let prefix = match self {
            Self::GoKit => path,
            Self::Grpc => path.strip_prefix('/').unwrap_or(path),
        };
        (!prefix.is_empty()).then(|| prefix.to_owned())
    }

    /// The value of an instance's entry. Fails with the reason if the layout cannot hold the instance.
    pub(super) fn encode(self, instance: &Instance) -> Result<Vec<u8>, String> {
        match self {
            Self::GoKit => gokit::encode(instance),
            Self::Grpc => grpc::encode(instance),
        }
    }

    /// Fails with the reason if the entries do not have what the query filters by.
    pub(super) fn check_filters(self, tags: bool, datacenter: bool) -> Result<(), String> {
        match self {
            Self::GoKit => gokit::check_filters(tags, datacenter),
            Self::Grpc => Ok(()),
        }
    }
}

/// The instance of `service` in an entry's value, in any layout. Fails with the reason.
pub(super) fn decode(service: &str, value: &[u8]) -> Result<Instance, String> {
    let text = str::from_utf8(value).map_err(|_| "the value is not UTF-8".to_owned())?;
    let text = text.trim();
    if text.starts_with('{') {
        grpc::decode(service, text)
    } else {
        gokit::decode(service, text)
    }
}

/// The beginning of the keys of a service. With its slash, so that `trim` does not find `trim2`.
pub(super) fn service_prefix(prefix: &str, service: &str) -> String {
    format!("{prefix}/{service}/")
}

/// Fails with the reason if the name cannot be part of a key.
pub(super) fn check_service(service: &str) -> Result<(), String> {
    let reason = if service.is_empty() {
        "is empty"
    } else if service.starts_with('/') || service.ends_with('/') {
        "begins or ends with a slash"
    } else if service.chars().any(char::is_control) {
        "contains a control character"
    } else {
        return Ok(());
    };
    Err(format!("the service name {service:?} {reason}"))
}

/// The ID of an entry that has none: that of [`Instance::named`].
fn default_id(service: &str, instance: &Instance) -> String {
    format!("{service}-{}-{}", instance.host, instance.port)
}

#[cfg(test)]
mod tests;
