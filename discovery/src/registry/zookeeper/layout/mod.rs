//! The contents of the nodes of a service: the layouts of other programs.

mod curator;
mod gokit;

use crate::{instance::Instance, registry::Query};

/// The form of a service's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// The JSON of Apache Curator's service discovery and of Spring Cloud ZooKeeper. In a URL:
    /// `curator`.
    #[default]
    Curator,
    /// The text `HOST:PORT`, as Go kit's `sd/zk` writes and reads it. In a URL: `gokit`.
    GoKit,
}

impl Layout {
    /// The layout of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "curator" => Some(Self::Curator),
            "gokit" => Some(Self::GoKit),
            _ => None,
        }
    }

    /// The node's data for an instance. `registered` is the time of the registration, in
    /// milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// The reason why the layout cannot hold the instance.
    pub(super) fn encode(self, instance: &Instance, registered: u64) -> Result<Vec<u8>, String> {
        match self {
            Self::Curator => curator::encode(instance, registered),
            Self::GoKit => gokit::encode(instance),
        }
    }

    /// The instance in the node `name`, or `None` if the query leaves it out.
    ///
    /// # Errors
    ///
    /// The reason why the node cannot be used, with its name.
    pub(super) fn decode(
        self,
        name: &str,
        data: &[u8],
        query: &Query,
    ) -> Result<Option<Instance>, String> {
        let instance = match self {
            Self::Curator => curator::decode(name, data),
            Self::GoKit => gokit::decode(name, data),
        };
        let instance = instance.map_err(|reason| format!("{name}: {reason}"))?;
        if !query.wants_tags(&instance.tags) {
            return Ok(None);
        }
        Ok(Some(instance.with_service(&query.service)))
    }

    /// Checks that the layout can answer the query.
    pub(super) fn check(self, query: &Query) -> Result<(), String> {
        match self {
            Self::GoKit if !query.tags.is_empty() => {
                Err("the layout gokit has no tags; use layout=curator".to_owned())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
