//! One registration: an entry under a lease.
//!
//! `own_entry` writes and reads the entry, `renewal` keeps it alive, and `lease` has the times.

mod lease;
mod own_entry;
mod renewal;

use std::sync::Arc;

use tokio::{runtime::Handle, time::Instant};

use self::{lease::Lease, own_entry::OwnEntry};
use super::{client::Client, config::check_lease};
use crate::{
    future::BoxFuture,
    registry::{
        Check, CheckState, Registration, RegistrationClient, RegistryError, conflict::Conflicts,
    },
    watch,
};

pub(super) struct EurekaRegistration {
    client: Arc<Client>,
    id: String,
    entry: OwnEntry,
    lease: Lease,
    conflicts: Conflicts,
}

impl EurekaRegistration {
    /// # Errors
    ///
    /// `InvalidSetting` for an instance that Eureka cannot hold, or a check that it lacks.
    pub(super) fn new(
        client: Arc<Client>,
        registration: &Registration,
    ) -> Result<Self, RegistryError> {
        let instance = &registration.instance;
        let id = &instance.id;
        let invalid = |reason: String| {
            RegistryError::invalid_setting(
                client.name(),
                format!("cannot register {id:?}: {reason}"),
            )
        };
        instance.validate()?;
        let lease = match &registration.check {
            Check::Default | Check::None => client.config().lease,
            Check::Ttl { ttl } => *ttl,
            Check::Grpc(_) => {
                return Err(invalid(
                    "Eureka does not call instances; it has the check ttl (a lease), which is also its \
                     default"
                        .to_owned(),
                ));
            }
        };
        check_lease("the check's TTL", lease).map_err(invalid)?;
        let lease = Lease::new(lease);
        Ok(Self {
            id: id.clone(),
            entry: OwnEntry::new(Arc::clone(&client), registration, &lease).map_err(invalid)?,
            lease,
            client,
            conflicts: Conflicts::default(),
        })
    }

    async fn until_lost(&self) -> RegistryError {
        if Handle::try_current().is_err() {
            return RegistryError::NoRuntime {
                action: format!("keep {} registered", self.id),
            };
        }
        let since = Instant::now();
        let lost = renewal::keep(&self.entry, self.lease).await;
        self.conflicts.pause(&lost, since.elapsed()).await;
        lost
    }
}

impl RegistrationClient for EurekaRegistration {
    fn id(&self) -> &str {
        &self.id
    }

    fn registry(&self) -> &str {
        self.client.name()
    }

    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(self.entry.register())
    }

    fn maintain(&self) -> BoxFuture<'_, RegistryError> {
        Box::pin(self.until_lost())
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(self.entry.deregister())
    }

    /// The status of the entry, which an operator may have overridden.
    fn check_state(&self) -> Option<watch::Receiver<CheckState>> {
        Some(self.entry.check_state())
    }
}
