//! A registry that may lose instances by its own failure.

use std::sync::Arc;

use discovery::{
    registry::{
        InstanceSet, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
        StaticRegistry,
    },
    watch,
};

/// A static list as a registry that may lose instances by its own failure.
pub(crate) struct Fallible(pub(crate) StaticRegistry);

impl Registry for Fallible {
    fn name(&self) -> &'static str {
        "fallible"
    }

    fn instancer(&self, _query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        Ok(Arc::new(Self(self.0.clone())))
    }

    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        self.0.registration(registration)
    }
}

impl Instancer for Fallible {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.0.watch()
    }
}
