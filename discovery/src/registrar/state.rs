//! The state of a registration.

use std::sync::Arc;

use crate::registry::{CheckState, RegistryError};

/// The state of a registration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not in the registry: not yet registered, or lost and about to be registered again. The
    /// value is the last failure.
    Registering(Option<Arc<RegistryError>>),
    /// In the registry.
    #[non_exhaustive]
    Registered {
        /// The registry's health check of the instance. Unless it passes, queries for passing
        /// instances leave the instance out.
        check: CheckState,
    },
}

impl RegistrationState {
    /// True if the instance is in the registry, with any state of its health check.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        matches!(self, Self::Registered { .. })
    }

    /// True if the instance is in the registry and its health check passes.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Registered { check } if check.is_passing())
    }
}
