//! The health of an instance as its own health service reports it on the connection.

/// The health of an instance as its health service reports it on the connection (gRFC A17), see
/// [`ChannelBuilder::health_service`](crate::ChannelBuilder::health_service).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[repr(u8)]
#[non_exhaustive]
pub enum WatchedHealth {
    /// The health is not watched, or there is no connection.
    Unwatched,
    /// The first answer on the connection is awaited. Until then the instance receives no calls.
    Awaited,
    /// `SERVING`.
    Serving,
    /// Any other status: `NOT_SERVING`, `SERVICE_UNKNOWN` or `UNKNOWN`. The instance receives no calls.
    NotServing,
    /// The instance has no health service, or none that can be watched. It receives calls.
    NoService,
    /// The watch has failed and is begun again after a delay. Until then the instance receives no calls.
    Interrupted,
}

impl WatchedHealth {
    const ALL: [Self; 6] = [
        Self::Unwatched,
        Self::Awaited,
        Self::Serving,
        Self::NotServing,
        Self::NoService,
        Self::Interrupted,
    ];

    pub(super) fn of(byte: u8) -> Self {
        Self::ALL[usize::from(byte).min(Self::ALL.len() - 1)]
    }

    /// True if the instance may receive calls.
    #[must_use]
    pub fn allows_calls(self) -> bool {
        matches!(self, Self::Unwatched | Self::Serving | Self::NoService)
    }

    /// The reason why a connected instance does not receive calls, to read. `None` if it may receive
    /// them, or its first answer is awaited.
    #[must_use]
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Self::NotServing => Some("its health service does not report SERVING"),
            Self::Interrupted => Some("the watch of its health has failed"),
            Self::Unwatched | Self::Awaited | Self::Serving | Self::NoService => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_as_it_was_stored() {
        for health in WatchedHealth::ALL {
            assert_eq!(WatchedHealth::of(health as u8), health);
        }
    }
}
