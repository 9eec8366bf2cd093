//! Consul.

use std::sync::Arc;

use super::{Instancer, Query, Registration, RegistrationClient, Registry, RegistryError};

/// A Consul agent or cluster.
#[derive(Debug)]
pub struct Consul {}

impl Consul {
    /// From URL.
    ///
    /// # Errors
    ///
    /// x
    pub fn from_url(_url: &str) -> Result<Self, RegistryError> {
        Ok(Self {})
    }
}

impl Registry for Consul {
    fn name(&self) -> &'static str {
        ""
    }
    fn instancer(&self, _query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        Err(RegistryError::invalid_url("", ""))
    }
    fn registration(
        &self,
        _registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(RegistryError::invalid_url("", ""))
    }
}
