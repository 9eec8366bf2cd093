//! A fixed list of instances, for tests and for users without a registry.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    InstanceSet, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
};
use crate::instance::Instance;

/// A registry that holds what it was given, until [`set`](Self::set) gives it something else.
///
/// Clones are handles to the same list. The query's service, tags and health are not looked at:
/// whoever fixes a list has chosen already.
#[derive(Clone, Debug)]
pub struct StaticRegistry {
    instances: Arc<watch::Sender<InstanceSet>>,
}

impl StaticRegistry {
    /// A registry of these instances.
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        let set = InstanceSet::confirmed(instances.into_iter().collect());
        Self {
            instances: Arc::new(watch::Sender::new(set)),
        }
    }

    /// Reads `HOST:PORT,HOST:PORT,...`.
    ///
    /// # Errors
    ///
    /// When the list is empty or one address is malformed.
    pub fn parse(list: &str) -> Result<Self, RegistryError> {
        let instances = list
            .split(',')
            .map(|address| Instance::parse(address.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(instances))
    }

    /// Replaces the whole list; channels that use it follow.
    pub fn set(&self, instances: impl IntoIterator<Item = Instance>) {
        let set = InstanceSet::confirmed(instances.into_iter().collect());
        self.instances.send_replace(set);
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
