//! The ejection of one instance, as users see it.

use std::time::Instant;

/// The ejection of an instance: how far its return is, and why it was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Ejection {
    /// The step of its return.
    pub phase: EjectionPhase,
    /// The time of the next probe; `None` after it has begun. Serialized as `until_seconds`, the seconds
    /// that are left.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "until_seconds",
            serialize_with = "crate::serialize::optional_seconds_until"
        )
    )]
    pub until: Option<Instant>,
    /// The evidence, to read.
    pub reason: &'static str,
    /// Number of ejections in short order, this one included. The n-th takes n times as long.
    pub ejections: u32,
}

/// The step of an ejected instance's return, see [`EjectionPolicy`](crate::EjectionPolicy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum EjectionPhase {
    /// It receives no calls.
    Ejected,
    /// Its health service is asked.
    Probing,
    /// It may receive one call at a time.
    Probation,
}
