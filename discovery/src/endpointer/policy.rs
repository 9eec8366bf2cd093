//! The settings of an endpointer that can be replaced while it runs.

use std::sync::Arc;

use super::RemovalProtection;
use crate::{
    balance::{Balancer, Policy},
    ejection::EjectionPolicy,
    filter::{subset::Subset, zone::Locality},
    limit::ConcurrencyLimit,
    warm_up::WarmUp,
};

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct SetPolicy {
    pub(crate) balancer: Arc<dyn Balancer>,
    /// `None` for a balancer of the application's own.
    pub(crate) balancer_name: Option<Policy>,
    pub(crate) ejection: Arc<EjectionPolicy>,
    pub(crate) protection: RemovalProtection,
    pub(crate) subset: Option<Subset>,
    pub(crate) locality: Option<Locality>,
    pub(crate) warm_up: WarmUp,
    #[cfg(feature = "orca")]
    pub(crate) load_reports: crate::orca::LoadReports,
    /// The service whose health is watched on each connection.
    pub(crate) health: Option<Arc<str>>,
    /// The limit of concurrent calls of each instance.
    pub(crate) concurrency: ConcurrencyLimit,
}

/// The settings as they take effect for this registry.
pub(super) fn in_effect(policy: SetPolicy, authoritative: bool) -> SetPolicy {
    let protection = if authoritative {
        // A removal is never the registry's own failure, so there is nothing to protect from.
        policy.protection.off()
    } else {
        policy.protection
    };
    SetPolicy {
        protection,
        ..policy
    }
}
