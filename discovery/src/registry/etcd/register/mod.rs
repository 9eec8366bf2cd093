//! One registration: an entry under a lease.
//!
//! `lease` keeps the lease alive, `own_entry` writes the entry and finds out that it was removed or
//! overwritten.

mod lease;
mod own_entry;

use std::{
    future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use self::{lease::Lease, own_entry::OwnEntry};
use super::{
    client::Client,
    layout::{check_service, service_prefix},
};
use crate::{
    future::BoxFuture,
    registry::{Check, Registration, RegistrationClient, RegistryError, conflict::Conflicts},
};

/// The lease of [`Check::Default`]. Go kit's default is the same.
const DEFAULT_TTL: Duration = Duration::from_secs(10);

pub(super) struct EtcdRegistration {
    client: Arc<Client>,
    id: String,
    entry: OwnEntry,
    /// `None`: the entry has no lease.
    lease: Option<Lease>,
    /// The lease's ID, or 0, and the revision at which the entry was there.
    registered: Mutex<Option<(i64, i64)>>,
    conflicts: Conflicts,
}

impl EtcdRegistration {
    /// # Errors
    ///
    /// `InvalidSetting` for an instance that the layout cannot hold, or a check that etcd lacks.
    pub(super) fn new(
        client: Arc<Client>,
        registration: &Registration,
    ) -> Result<Self, RegistryError> {
        let instance = &registration.instance;
        let id = instance.id.as_str();
        let invalid = |reason: String| {
            RegistryError::invalid_setting(
                client.name(),
                format!("cannot register {id:?}: {reason}"),
            )
        };
        instance.validate()?;
        check_service(&instance.service).map_err(invalid)?;
        let config = client.config();
        let value = config.layout.encode(instance).map_err(invalid)?;
        let prefix = service_prefix(config.key_prefix(), &instance.service);
        let key = format!("{prefix}{}", instance.authority());
        let ttl = lease_of(&registration.check).map_err(invalid)?;
        let lease = ttl.map(|ttl| Lease::new(Arc::clone(&client), id, seconds(ttl)));
        Ok(Self {
            id: id.to_owned(),
            entry: OwnEntry::new(Arc::clone(&client), id, key, value),
            lease,
            client,
            registered: Mutex::default(),
            conflicts: Conflicts::default(),
        })
    }

    async fn put(&self) -> Result<(), RegistryError> {
        let registered = match self.put_once().await {
            // The lease expired between its keep-alive and the write.
            Err(error) if is_not_found(&error) => {
                if let Some(lease) = &self.lease {
                    lease.forget();
                }
                self.put_once().await?
            }
            first => first?,
        };
        *self.registered() = Some(registered);
        Ok(())
    }

    async fn put_once(&self) -> Result<(i64, i64), RegistryError> {
        let lease = match &self.lease {
            Some(lease) => lease.ensure().await?,
            None => 0,
        };
        Ok((lease, self.entry.put(lease).await?))
    }

    async fn until_lost(&self) -> RegistryError {
        if Handle::try_current().is_err() {
            return RegistryError::NoRuntime {
                action: format!("keep {} registered", self.id),
            };
        }
        let Some((lease, revision)) = *self.registered() else {
            return RegistryError::Forgotten {
                registry: self.client.name().to_owned(),
                id: self.id.clone(),
            };
        };
        let since = Instant::now();
        let lost = tokio::select! {
            lost = self.entry.until_lost(lease, revision) => lost,
            lost = keep(self.lease.as_ref()) => lost,
        };
        self.conflicts.pause(&lost, since.elapsed()).await;
        lost
    }

    async fn remove(&self) -> Result<(), RegistryError> {
        match &self.lease {
            Some(lease) => lease.revoke().await,
            None => self.entry.delete(0).await,
        }
    }

    fn registered(&self) -> std::sync::MutexGuard<'_, Option<(i64, i64)>> {
        self.registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the lease alive until it is lost. Never ends for an entry without a lease.
async fn keep(lease: Option<&Lease>) -> RegistryError {
    match lease {
        Some(lease) => lease.keep().await,
        None => future::pending().await,
    }
}

/// The time of the lease that the check asks for. `None`: no lease.
fn lease_of(check: &Check) -> Result<Option<Duration>, String> {
    match check {
        Check::Default => Ok(Some(DEFAULT_TTL)),
        Check::Ttl { ttl } if ttl.is_zero() => Err("the check's TTL is zero".to_owned()),
        Check::Ttl { ttl } => Ok(Some(*ttl)),
        Check::None => Ok(None),
        Check::Grpc(_) => Err(
            "etcd does not call instances; it has the checks ttl (a lease) and none (an entry that \
             stays until it is deregistered)"
                .to_owned(),
        ),
    }
}

/// Whole seconds, rounded up.
fn seconds(ttl: Duration) -> i64 {
    let more = u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(ttl.as_secs().saturating_add(more)).unwrap_or(i64::MAX)
}

/// True for an answer about an unknown lease.
fn is_not_found(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Refused { code, .. } if code == "NOT_FOUND")
}

impl RegistrationClient for EtcdRegistration {
    fn id(&self) -> &str {
        &self.id
    }

    fn registry(&self) -> &str {
        self.client.name()
    }

    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(self.put())
    }

    fn maintain(&self) -> BoxFuture<'_, RegistryError> {
        Box::pin(self.until_lost())
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(self.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_at_least_as_long_as_it_was_asked_for() {
        for (millis, expected) in [(1, 1), (1000, 1), (1500, 2), (10_000, 10)] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
        assert_eq!(seconds(Duration::MAX), i64::MAX);
    }

    #[test]
    fn a_check_that_etcd_lacks_is_refused_with_those_that_it_has() {
        assert_eq!(lease_of(&Check::Default), Ok(Some(DEFAULT_TTL)));
        assert_eq!(lease_of(&Check::None), Ok(None));
        assert!(lease_of(&Check::ttl(Duration::ZERO)).is_err());
        let error = lease_of(&Check::grpc().into()).unwrap_err();
        assert!(error.contains("ttl") && error.contains("none"), "{error}");
    }
}
