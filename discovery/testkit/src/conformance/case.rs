//! The cases of the suite, and what one finds.

use std::time::Duration;

/// One promise that every registry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// A registered instance is in the set.
    Seen,
    /// Tags, metadata, weight and zone come back as they were given.
    RoundTrip,
    /// A registration with other metadata replaces the earlier one.
    Updated,
    /// A deregistered instance leaves the set; the others stay.
    Deregistered,
    /// A malformed entry hides no good one.
    Malformed,
    /// A new watch sees 1 000 instances.
    Thousand,
    /// The instance of a killed process is no longer usable.
    Killed,
    /// The instance of a stopped process is no longer usable, and is again after it continues.
    Stopped,
    /// While the server is down, the last good set stays, with an error.
    Outage,
    /// The same while the server hangs with open connections.
    Hang,
    /// After a restart with its data, the instances are there and new ones are seen.
    Kept,
    /// After a restart without its data, the instances register again by themselves.
    Wiped,
    /// Watch and registration work with the right credentials.
    RightCredentials,
    /// With wrong credentials, or none, the error says so, without showing them.
    WrongCredentials,
}

impl Case {
    /// The case in a few words, for the table.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Seen => "registered: seen",
            Self::RoundTrip => "tags, metadata, weight, zone: as given",
            Self::Updated => "registered with other metadata: seen",
            Self::Deregistered => "deregistered: gone",
            Self::Malformed => "malformed entries: skipped",
            Self::Thousand => "1 000 instances: in a new watch",
            Self::Killed => "process killed (SIGKILL): gone",
            Self::Stopped => "process stopped (SIGSTOP): gone",
            Self::Outage => "server killed: error, set kept",
            Self::Hang => "server stopped (SIGSTOP): error, set kept",
            Self::Kept => "server restarted with its data: confirmed",
            Self::Wiped => "server restarted empty: back",
            Self::RightCredentials => "right credentials: seen",
            Self::WrongCredentials => "wrong credentials: error",
        }
    }
}

/// The figures of a case that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    pub(super) took: Option<Duration>,
    pub(super) note: String,
}

impl Finding {
    /// The time that is compared with the bound.
    #[must_use]
    pub fn took(time: Duration) -> Self {
        Self {
            took: Some(time),
            note: String::new(),
        }
    }

    /// A case without a bound.
    #[must_use]
    pub fn holds() -> Self {
        Self::default()
    }

    /// Adds a remark.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}
