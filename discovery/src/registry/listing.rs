//! One whole answer of a registry: the usable instances, and the entries that cannot be used.

use crate::instance::Instance;

/// The instances in one answer of a registry.
///
/// An entry that cannot be used is counted with its reason and hides no other entry.
///
/// ```
/// use discovery::{Instance, registry::Listing};
///
/// let mut listing = Listing::default();
/// for entry in ["10.0.0.1:8975", "10.0.0.2:0"] {
///     match Instance::parse(entry) {
///         Ok(instance) => listing.push(instance),
///         Err(error) => listing.reject(error.to_string()),
///     }
/// }
/// assert_eq!(listing.instances().len(), 1);
/// assert!(listing.rejected()[0].contains("10.0.0.2:0"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    instances: Vec<Instance>,
    rejected: Vec<String>,
}

impl Listing {
    /// Adds an instance. The order does not matter; of equal IDs the first is kept.
    pub fn push(&mut self, instance: Instance) {
        self.instances.push(instance);
    }

    /// Counts an entry that cannot be used. `reason` names the entry and what is wrong with it.
    pub fn reject(&mut self, reason: impl Into<String>) {
        self.rejected.push(reason.into());
    }

    /// The instances, in the order in which they were added.
    #[must_use]
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The reasons for the entries that cannot be used.
    #[must_use]
    pub fn rejected(&self) -> &[String] {
        &self.rejected
    }

    pub(crate) fn into_parts(self) -> (Vec<Instance>, Vec<String>) {
        (self.instances, self.rejected)
    }
}

impl FromIterator<Instance> for Listing {
    fn from_iter<I: IntoIterator<Item = Instance>>(instances: I) -> Self {
        Self {
            instances: instances.into_iter().collect(),
            rejected: Vec::new(),
        }
    }
}
