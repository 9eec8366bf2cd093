//! The selection of instances to watch.

use super::Listing;
use crate::instance::Instance;

/// The instances to watch: one service, and filters on its instances.
///
/// Every registry applies a filter, or refuses it when the watch starts if its entries do not have what the
/// filter needs. None ignores one.
///
/// ```
/// use discovery::registry::Query;
///
/// let query = Query::new("trim_service").with_tags(["blue"]).with_datacenter("dc2");
/// assert!(query.passing_only);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Query {
    /// The service's name in the registry.
    pub service: String,
    /// The tags that an instance must have, all of them, in upper or lower case: `blue` also selects
    /// `Blue`, as in Consul. Default: none.
    pub tags: Vec<String>,
    /// True if only instances whose health checks all pass are picked. Default: true. A watch lists
    /// all instances in either case, see [`InstanceSet`](super::InstanceSet).
    pub passing_only: bool,
    /// The datacenter to look in, or several in order of preference, separated by commas. Default: the
    /// registry's own. A registry without datacenters refuses it; only Consul takes several.
    pub datacenter: Option<String>,
}

impl Query {
    /// All passing instances of `service`.
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            tags: Vec::new(),
            passing_only: true,
            datacenter: None,
        }
    }

    /// Sets [`tags`](Self::tags).
    #[must_use]
    pub fn with_tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`passing_only`](Self::passing_only).
    #[must_use]
    pub fn with_passing_only(mut self, passing_only: bool) -> Self {
        self.passing_only = passing_only;
        self
    }

    /// True if the instance has all wanted [`tags`](Self::tags), in any case, and is in the wanted
    /// [`datacenter`](Self::datacenter). For registries that do not select by themselves.
    #[must_use]
    pub fn selects(&self, instance: &Instance) -> bool {
        let there = |wanted: &String| instance.datacenter.as_ref() == Some(wanted);
        self.wants_tags(&instance.tags) && self.datacenter.as_ref().is_none_or(there)
    }

    /// Refuses several datacenters, for registries that do not have an order of them.
    pub(crate) fn check_datacenter(&self) -> Result<(), String> {
        match &self.datacenter {
            Some(several) if several.contains(',') => Err(format!(
                "only Consul has an order of datacenters; name one of {several:?}"
            )),
            _ => Ok(()),
        }
    }

    /// True if all wanted tags are among `tags`, in any case.
    pub(crate) fn wants_tags(&self, tags: &[String]) -> bool {
        self.tags.iter().all(|wanted| {
            let wanted = wanted.to_lowercase();
            tags.iter().any(|tag| tag.to_lowercase() == wanted)
        })
    }

    /// The listing without the instances that the query does not [select](Self::selects).
    #[must_use]
    pub fn select(&self, mut listing: Listing) -> Listing {
        listing.retain(|instance| self.selects(instance));
        listing
    }

    /// Sets [`datacenter`](Self::datacenter).
    #[must_use]
    pub fn with_datacenter(mut self, datacenter: impl Into<String>) -> Self {
        self.datacenter = Some(datacenter.into());
        self
    }
}
