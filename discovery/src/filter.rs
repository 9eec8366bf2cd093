//! Filters select the instances from which a balancing policy picks. They work with every policy.
//!
//! ```text
//! registry -> subset -> endpoints -> usable endpoints -> zone -> policy
//! ```
//!
//! [`subset`] is applied before endpoints are made, so that no connection is made to the other
//! instances. [`zone`] is applied after outlier ejection, because the remaining capacity decides the
//! share of calls that stay in the zone.

pub(crate) mod subset;
pub(crate) mod zone;
