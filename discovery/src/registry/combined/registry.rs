//! Several registries as one registry.

use std::sync::Arc;

use super::{instancer::CombinedInstancer, rule::Rule};
use crate::{
    future::BoxFuture,
    registry::{Instancer, Query, Registration, RegistrationClient, Registry, RegistryError},
};

/// The instances of several registries together.
///
/// Of instances at one address, the first registry's is listed. A registry that cannot be reached keeps
/// its last good set and hides no instance of another.
///
/// ```
/// use std::sync::Arc;
///
/// use discovery::{Channel, registry::{StaticRegistry, Union}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let old = StaticRegistry::parse("10.0.0.1:8975")?;
/// let new = StaticRegistry::parse("10.0.0.1:8975,10.0.0.2:8975")?;
/// let both = Union::new(Arc::new(old)).with(Arc::new(new));
/// let channel = Channel::from_registry(Arc::new(both), "trim_service").build()?;
/// channel.wait_for(|status| status.listed == 2).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Union {
    parts: Vec<Arc<dyn Registry>>,
    name: String,
}

impl Union {
    /// A union of one registry, to which others are [added](Self::with).
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self {
            name: registry.name().to_owned(),
            parts: vec![registry],
        }
    }

    /// Adds a registry, after the others in preference.
    #[must_use]
    pub fn with(mut self, registry: Arc<dyn Registry>) -> Self {
        self.name = format!("{} and {}", self.name, registry.name());
        self.parts.push(registry);
        self
    }
}

impl Registry for Union {
    fn name(&self) -> &str {
        &self.name
    }

    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        start(Rule::Union, &self.parts, query)
    }

    /// Always an error: each registry needs a [`Registrar`](crate::Registrar) of its own, so that an
    /// unreachable one does not affect the others.
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(unsupported(&self.name, &registration))
    }

    /// The services of each registry that can list them.
    fn services(&self) -> BoxFuture<'_, Result<Vec<String>, RegistryError>> {
        Box::pin(services(&self.parts))
    }
}

/// A registry, and a second one that is used while the first lists nothing or has not answered.
///
/// The first registry's last good set counts while it is unreachable, so an outage alone changes nothing.
///
/// ```
/// use std::sync::Arc;
///
/// use discovery::registry::{OrElse, Registry, StaticRegistry};
///
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// let consul = discovery::registry::connect("static://10.0.0.1:8975")?;
/// let fallback = Arc::new(StaticRegistry::parse("10.0.9.9:8975")?);
/// let registry = OrElse::new(consul, fallback);
/// assert_eq!(registry.name(), "the static list, or else the static list");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OrElse {
    parts: [Arc<dyn Registry>; 2],
    name: String,
}

impl OrElse {
    /// Uses `second` while `first` lists nothing or has not answered.
    #[must_use]
    pub fn new(first: Arc<dyn Registry>, second: Arc<dyn Registry>) -> Self {
        Self {
            name: format!("{}, or else {}", first.name(), second.name()),
            parts: [first, second],
        }
    }
}

impl Registry for OrElse {
    fn name(&self) -> &str {
        &self.name
    }

    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        start(Rule::OrElse, &self.parts, query)
    }

    /// Always an error, as for [`Union`].
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(unsupported(&self.name, &registration))
    }

    /// The services of each registry that can list them.
    fn services(&self) -> BoxFuture<'_, Result<Vec<String>, RegistryError>> {
        Box::pin(services(&self.parts))
    }
}

fn start(
    rule: Rule,
    parts: &[Arc<dyn Registry>],
    query: &Query,
) -> Result<Arc<dyn Instancer>, RegistryError> {
    let parts = parts.iter().map(|part| part.instancer(query));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(CombinedInstancer::start(
        rule,
        parts,
        &query.service,
    )?))
}

/// The names in all registries that list theirs. The first error, if none does.
async fn services(parts: &[Arc<dyn Registry>]) -> Result<Vec<String>, RegistryError> {
    let (mut names, mut failure) = (None::<Vec<String>>, None);
    for part in parts {
        match part.services().await {
            Ok(listed) => names.get_or_insert_default().extend(listed),
            Err(error) => _ = failure.get_or_insert(error),
        }
    }
    match (names, failure) {
        (None, Some(error)) => Err(error),
        (names, _) => {
            let mut names = names.unwrap_or_default();
            names.sort_unstable();
            names.dedup();
            Ok(names)
        }
    }
}

fn unsupported(registry: &str, registration: &Registration) -> RegistryError {
    RegistryError::Unsupported {
        registry: registry.to_owned(),
        action: format!(
            "register {}: start a Registrar for each of the registries",
            registration.instance.id
        ),
    }
}
