//! Why a registry no longer offers an instance.

/// The reason why a registry no longer offers an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Withdrawal {
    /// It is no longer registered.
    Removed,
    /// It is registered, but the registry lost its node or session.
    Lost,
    /// It is registered, but its own check does not pass.
    Failing,
}

impl Withdrawal {
    /// The reason in words, after the name of an instance.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Removed => "no longer registered",
            Self::Lost => "the registry lost its node or session",
            Self::Failing => "its check in the registry does not pass",
        }
    }
}
