//! Routes: which instances a call may use, by its method and metadata. gRPC has them in xDS only.

use http::{HeaderName, HeaderValue};

use super::{
    error::{ConfigError, ConfigWarning},
    method::Name,
    node::Node,
};

/// The largest sum of the weights of a split.
const MAX_WEIGHT: u64 = 10_000;

/// A rule for some calls. The first rule that matches a call is used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteConfig {
    /// Empty for all methods.
    pub(crate) names: Vec<Name>,
    /// All of these must be there; `None` is any value.
    pub(crate) metadata: Vec<(HeaderName, Option<HeaderValue>)>,
    /// In proportion to their weights.
    pub(crate) split: Vec<Destination>,
}

/// The instances of a part of the calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Destination {
    pub(crate) weight: u32,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) id: Option<String>,
    /// True if other instances are used when none of these can be.
    pub(crate) fallback: bool,
}

impl RouteConfig {
    pub(super) fn read(
        node: &Node<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let mut object = node.object()?;
        let names = object.optional("name", Node::array)?.unwrap_or_default();
        let names = names.iter().map(|name| Name::read(name, warnings));
        let names = names.collect::<Result<_, _>>()?;
        let metadata = object.optional("metadata", metadata)?.unwrap_or_default();
        let list = object
            .take("split")
            .ok_or_else(|| node.invalid("split is required"))?;
        let mut split = Vec::new();
        for part in list.array()? {
            split.push(Destination::read(&part, warnings)?);
        }
        let sum: u64 = split.iter().map(|part| u64::from(part.weight)).sum();
        if !(1..=MAX_WEIGHT).contains(&sum) {
            let expected = format!("the sum of the weights must be from 1 to {MAX_WEIGHT}");
            return Err(list.invalid(expected));
        }
        object.finish(warnings);
        Ok(Self {
            names,
            metadata,
            split,
        })
    }
}

/// Keys of metadata with a value, or null for any.
fn metadata(node: &Node<'_>) -> Result<Vec<(HeaderName, Option<HeaderValue>)>, ConfigError> {
    let mut all = Vec::new();
    for (key, value) in node.object()?.fields() {
        let name = HeaderName::try_from(&key)
            .map_err(|_| value.invalid(format!("{key:?} is not a key of metadata")))?;
        let wanted = if value.is_null() {
            None
        } else {
            let text = value.string()?;
            let expected = "expected a text of visible ASCII characters, or null for any value";
            Some(HeaderValue::try_from(text).map_err(|_| value.invalid(expected))?)
        };
        all.push((name, wanted));
    }
    Ok(all)
}

impl Destination {
    fn read(node: &Node<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<Self, ConfigError> {
        let mut object = node.object()?;
        let mut destination = Self {
            weight: object
                .optional("weight", |node| node.number(0))?
                .unwrap_or(1),
            tags: object.optional("tags", Node::names)?.unwrap_or_default(),
            id: object.optional("id", Node::name)?,
            fallback: object.optional("fallback", Node::boolean)?.unwrap_or(true),
            metadata: Vec::new(),
        };
        if let Some(node) = object.take("metadata") {
            for (key, value) in node.object()?.fields() {
                destination.metadata.push((key, value.string()?));
            }
        }
        object.finish(warnings);
        Ok(destination)
    }
}
