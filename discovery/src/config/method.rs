//! One entry of `methodConfig`: the methods it is for, and their policy (gRFC A2).

use std::time::Duration;

use super::{
    OWN_KEY,
    attempts::{self, AttemptRule},
    error::{ConfigError, ConfigWarning},
    node::Node,
    own_method::OwnMethod,
    path_name::PathName,
};

/// The methods of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// One method, by its path `/package.Service/Method`.
    Method(String),
    /// All methods of a service, by its path `/package.Service`.
    Service(String),
    /// Requests of plain HTTP.
    Path(PathName),
    /// All methods.
    All,
}

impl Name {
    pub(super) fn read(
        node: &Node<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let mut object = node.object()?;
        if let Some(path) = object.take("path") {
            return PathName::read(&path, object, warnings).map(Self::Path);
        }
        // Empty texts are as good as absent ones, as in protobuf.
        let service = object
            .optional("service", Node::string)?
            .unwrap_or_default();
        let method = object.optional("method", Node::string)?.unwrap_or_default();
        object.finish(warnings);
        let is_malformed = |text: &str| text.contains('/') || text.contains(char::is_whitespace);
        if is_malformed(&service) || is_malformed(&method) {
            let expected = "expected {\"service\": \"package.Service\", \"method\": \"Method\"}";
            return Err(node.invalid(expected));
        }
        match (service.is_empty(), method.is_empty()) {
            (false, false) => Ok(Self::Method(format!("/{service}/{method}"))),
            (false, true) => Ok(Self::Service(format!("/{service}"))),
            (true, true) => Ok(Self::All),
            (true, false) => Err(node.invalid("a method needs its service")),
        }
    }
}

impl Name {
    /// True if all methods of `other` are among those of this name.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Service(service), Self::Method(path)) => path
                .rsplit_once('/')
                .is_some_and(|(known, _method)| known == service),
            (Self::Path(one), Self::Path(other)) => one.covers(other),
            _ => self == other,
        }
    }
}

/// The policy of some methods. Absent settings are those of the builder.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MethodConfig {
    pub(crate) names: Vec<Name>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) wait_for_ready: Option<bool>,
    pub(crate) max_request: Option<usize>,
    pub(crate) max_response: Option<usize>,
    pub(crate) attempts: Option<AttemptRule>,
    pub(crate) own: OwnMethod,
}

impl MethodConfig {
    /// Reads an entry. `seen` are the names of the entries before it.
    pub(super) fn read(
        node: &Node<'_>,
        seen: &mut Vec<Name>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let mut object = node.object()?;
        let mut names = Vec::new();
        for name in object.optional("name", Node::array)?.unwrap_or_default() {
            let read = Name::read(&name, warnings)?;
            if seen.contains(&read) {
                return Err(name.invalid("the name is given twice: each method has one entry"));
            }
            seen.push(read.clone());
            names.push(read);
        }
        if names.is_empty() {
            warnings.push(node.warning("has no name: the entry is ignored"));
        }
        let retry = object.take("retryPolicy");
        let hedging = object.take("hedgingPolicy");
        let attempts = match (retry, hedging) {
            (Some(_), Some(both)) => {
                return Err(both.invalid("a method has a retryPolicy or a hedgingPolicy, not both"));
            }
            (Some(retry), None) => Some(attempts::retry(&retry, warnings)?),
            (None, Some(hedging)) => Some(attempts::hedging(&hedging, warnings)?),
            (None, None) => None,
        };
        let config = Self {
            names,
            timeout: object.optional("timeout", Node::positive_duration)?,
            wait_for_ready: object.optional("waitForReady", Node::boolean)?,
            max_request: object.optional("maxRequestMessageBytes", Node::size)?,
            max_response: object.optional("maxResponseMessageBytes", Node::size)?,
            attempts,
            own: object
                .optional(OWN_KEY, |own| OwnMethod::read(own, warnings))?
                .unwrap_or_default(),
        };
        object.finish(warnings);
        Ok(config)
    }
}
