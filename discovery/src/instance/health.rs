//! The state of an instance as its registry sees it.

/// The state of an instance as its registry sees it.
///
/// Registries say three different things that all look like "gone": the instance was deregistered, its
/// own check fails, or the registry lost contact with its node or session. The first takes the instance
/// out of the set; this type tells the others apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum InstanceHealth {
    /// The registry does not say. Counts as usable.
    #[default]
    Unknown,
    /// All of its checks pass.
    Passing,
    /// A check of its own warns.
    Warning,
    /// A check of its own fails, or an operator took it out of service.
    Critical,
    /// The registry lost contact with the instance's node or session. The instance itself may work.
    Lost,
}

impl InstanceHealth {
    /// True if a query for passing instances includes the instance.
    #[must_use]
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Unknown | Self::Passing)
    }

    pub(crate) fn is_lost(self) -> bool {
        self == Self::Lost
    }
}
