//! A static list of instances, for tests and for users without a registry.

use std::sync::Arc;

use super::{
    InstanceSet, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
};
use crate::{instance::Instance, watch};

/// A registry of a given list of instances. [`set`](Self::set) replaces the list.
///
/// Clones are handles to the same list. The query's service, tags and health are ignored: the list
/// is the selection. The list is [authoritative](Instancer::authoritative): a removal takes effect
/// at once.
///
/// ```
/// use discovery::{Instance, registry::StaticRegistry};
///
/// # fn main() -> Result<(), discovery::InvalidInstance> {
/// let registry = StaticRegistry::new([Instance::new("10.0.0.1", 8975)?]);
/// registry.set([Instance::new("10.0.0.1", 8975)?, Instance::new("10.0.0.2", 8975)?]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StaticRegistry {
    instances: Arc<watch::Sender<InstanceSet>>,
}

impl StaticRegistry {
    /// A registry of these instances.
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        Self {
            instances: Arc::new(watch::Sender::new(InstanceSet::confirmed(instances))),
        }
    }

    /// Reads `HOST:PORT,HOST:PORT,...`.
    ///
    /// # Errors
    ///
    /// When the list is empty or an address is malformed.
    pub fn parse(list: &str) -> Result<Self, RegistryError> {
        let instances = list
            .split(',')
            .map(|address| Instance::parse(address.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(instances))
    }

    /// Replaces the whole list. Channels that use the registry follow.
    pub fn set(&self, instances: impl IntoIterator<Item = Instance>) {
        self.instances
            .send_replace(InstanceSet::confirmed(instances));
    }
}

impl Registry for StaticRegistry {
    fn name(&self) -> &'static str {
        "the static list"
    }

    fn instancer(&self, _query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        Ok(Arc::new(self.clone()))
    }

    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(RegistryError::Unsupported {
            registry: self.name().to_owned(),
            action: format!("register {}", registration.instance.id),
        })
    }
}

impl Instancer for StaticRegistry {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.instances.subscribe()
    }

    fn authoritative(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn publishes_what_it_holds_sorted_and_once() {
        let fixed = StaticRegistry::parse("127.0.0.1:2, 127.0.0.1:1,127.0.0.1:2").unwrap();
        let mut watch = fixed.instancer(&Query::new("any")).unwrap().watch();
        let ids = |set: &InstanceSet| {
            set.instances
                .iter()
                .map(|i| i.id.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ids(&watch.borrow_and_update()),
            ["127.0.0.1:1", "127.0.0.1:2"]
        );
        fixed.set([]);
        watch.changed().await.unwrap();
        assert!(watch.borrow().instances.is_empty());
        assert!(watch.borrow().confirmed.is_some());
    }

    #[test]
    fn an_empty_or_malformed_list_is_an_error() {
        for list in ["", ",", "a", "a:1,"] {
            assert!(StaticRegistry::parse(list).is_err(), "{list:?} was taken");
        }
    }
}
