//! The instances of a service, as a watch publishes them.

use std::{sync::Arc, time::Instant};

use super::error::RegistryError;
use crate::{clock, instance::Instance};

/// The known instances of a service.
///
/// A failure of the registry leaves [`instances`](Self::instances) unchanged and sets
/// [`error`](Self::error). The next good answer clears the error.
///
/// It also lists instances that fail their checks, and instances whose node or session the registry
/// lost: [`Instance::health`] tells them apart, and [`usable`](Self::usable) leaves them out.
/// [`Query::passing_only`](super::Query::passing_only) decides which instances a
/// [`Channel`](crate::Channel) picks, not which are known.
///
/// The default value is a set that the registry has not answered for yet.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct InstanceSet {
    /// The last good answer, sorted by ID, without duplicates or malformed entries.
    pub instances: Arc<[Arc<Instance>]>,
    /// The time of the registry's last good answer. `None`: the registry has not answered yet.
    ///
    /// It advances while the registry answers, also when nothing changes and no reader is woken. Each
    /// registry states how old it may become: `consul::Config::wait` for Consul.
    pub confirmed: Option<Instant>,
    /// The reason why the registry has not confirmed the set since then.
    pub error: Option<Arc<RegistryError>>,
}

impl InstanceSet {
    /// A good answer, received now. Sorts by ID and keeps the first of equal IDs.
    #[must_use]
    pub fn confirmed(instances: impl IntoIterator<Item = Instance>) -> Self {
        let mut instances: Vec<_> = instances.into_iter().collect();
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances.dedup_by(|later, first| later.id == first.id);
        Self {
            instances: instances.into_iter().map(Arc::new).collect(),
            confirmed: Some(clock::now()),
            error: None,
        }
    }

    /// The instances that a query for passing instances includes.
    ///
    /// ```
    /// use discovery::{Instance, InstanceHealth, registry::InstanceSet};
    ///
    /// # fn main() -> Result<(), discovery::InvalidInstance> {
    /// let good = Instance::new("10.0.0.1", 8975)?;
    /// let lost = Instance::new("10.0.0.2", 8975)?.with_health(InstanceHealth::Lost);
    /// let set = InstanceSet::confirmed([good, lost]);
    /// assert_eq!(set.instances.len(), 2);
    /// let usable: Vec<_> = set.usable().map(|instance| instance.host.as_str()).collect();
    /// assert_eq!(usable, ["10.0.0.1"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn usable(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances
            .iter()
            .filter(|instance| instance.health.is_usable())
    }

    /// The same instances after the registry failed with `error`.
    #[must_use]
    pub fn with_error(mut self, error: impl Into<Arc<RegistryError>>) -> Self {
        self.error = Some(error.into());
        self
    }
}
