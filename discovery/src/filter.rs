//! Filters: which instances a policy gets to see at all. They compose with any policy.
//!
//! ```text
//! registry -> subset -> endpoints -> usable ones -> zone -> policy
//! ```
//!
//! [`subset`] comes before there are endpoints, so that no connection is made to the rest; [`zone`]
//! comes after the sick ones were taken out, since what is left decides how much can stay near.

pub(crate) mod subset;
pub(crate) mod zone;
