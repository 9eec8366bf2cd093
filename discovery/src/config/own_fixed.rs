//! The settings of a service config that a channel reads once, when it is built: which instances the
//! registry is asked for, and how connections to them are made.

use std::time::Duration;

use super::{
    error::{ConfigError, ConfigWarning},
    node::{Node, Object},
};

/// Time limit for the answer to a ping, where the config sets an interval only.
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings that a channel reads once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OwnFixed {
    pub(crate) passing_only: Option<bool>,
    pub(crate) datacenters: Option<Vec<String>>,
    pub(crate) connections: OwnConnections,
}

/// The settings of connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OwnConnections {
    pub(crate) eager: Option<bool>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) initial_backoff: Option<Duration>,
    pub(crate) max_backoff: Option<Duration>,
    pub(crate) parallel: Option<usize>,
    /// Zero turns pings off.
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) keep_alive_timeout: Option<Duration>,
    /// Zero turns the kernel's probes off.
    pub(crate) tcp_keep_alive: Option<Duration>,
}

impl OwnFixed {
    /// Reads the fields from the object under this crate's key.
    pub(super) fn read(
        object: &mut Object<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            passing_only: object.optional("passingOnly", Node::boolean)?,
            datacenters: object.optional("datacenters", datacenters)?,
            connections: object
                .optional("connections", |node| OwnConnections::read(node, warnings))?
                .unwrap_or_default(),
        })
    }
}

/// Names that can stand in a list separated by commas.
fn datacenters(node: &Node<'_>) -> Result<Vec<String>, ConfigError> {
    let names = node.names()?;
    if names.is_empty() || names.iter().any(|name| name.contains(',')) {
        return Err(node.invalid("expected at least one name, each without a comma"));
    }
    Ok(names)
}

impl OwnConnections {
    fn read(node: &Node<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<Self, ConfigError> {
        let mut object = node.object()?;
        let own = Self {
            eager: object.optional("eager", Node::boolean)?,
            timeout: object.optional("timeout", Node::positive_duration)?,
            initial_backoff: object.optional("initialBackoff", Node::positive_duration)?,
            max_backoff: object.optional("maxBackoff", Node::positive_duration)?,
            parallel: object
                .optional("parallel", |node| node.number(1))?
                .map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
            keep_alive: object.optional("keepAlive", Node::duration)?,
            keep_alive_timeout: object.optional("keepAliveTimeout", Node::positive_duration)?,
            tcp_keep_alive: object.optional("tcpKeepAlive", Node::duration)?,
        };
        object.finish(warnings);
        Ok(own)
    }

    /// True if a setting is given that only this crate's own factory has.
    pub(crate) fn has_probes(&self) -> bool {
        self.keep_alive.is_some()
            || self.keep_alive_timeout.is_some()
            || self.tcp_keep_alive.is_some()
    }
}
