//! The failures of a call.

use std::{io, sync::Arc, time::Duration};

use super::super::protocol::{Code, Malformed};
use crate::registry::RegistryError;

/// The end of a connection. Its session goes on until its timeout.
#[derive(Clone, Debug, thiserror::Error)]
pub(in super::super) enum Lost {
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection broke")]
    Broken(#[source] Arc<io::Error>),
    #[error("no sign of life for {0:?}")]
    Silent(Duration),
    #[error("no answer to a request for {0:?}")]
    Overdue(Duration),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("over {0} events were not read")]
    EventsNotRead(usize),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Broken(Arc::new(error)),
        }
    }
}

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
pub(in super::super) enum Failure {
    /// No server could be connected to. The text has each one's reason.
    #[error("{0}")]
    NoServer(String),
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The session has expired, with its ephemeral nodes.
    #[error("the session has expired")]
    Expired,
    #[error("{0}")]
    Refused(Code),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The request would close the connection.
    #[error("the request has {0} bytes, over ZooKeeper's limit of 1 MiB")]
    TooLarge(usize),
}

impl Failure {
    /// True if the call may be repeated over another connection.
    pub(in super::super) fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::Lost(_) | Self::Refused(Code::SESSION_MOVED | Code::SESSION_EXPIRED)
        )
    }

    /// The error of the registry `registry` that failed to `action`.
    pub(in super::super) fn into_error(self, registry: &str, action: &str) -> RegistryError {
        let (registry, action) = (registry.to_owned(), action.to_owned());
        match self {
            Self::NoServer(_) | Self::Lost(_) | Self::Expired => RegistryError::Unreachable {
                registry,
                action,
                source: self.into(),
            },
            Self::Refused(code) if code.is_denial() => RegistryError::Denied {
                registry,
                action,
                reason: format!("{code}; check the user and the password in the URL"),
            },
            Self::Refused(code) => RegistryError::Refused {
                registry,
                action,
                code: code.to_string(),
                reason: "see KeeperException in ZooKeeper's documentation".to_owned(),
                transient: code.may_pass(),
            },
            Self::TooLarge(_) => {
                RegistryError::invalid_setting(registry, format!("cannot {action}: {self}"))
            }
            Self::Malformed(malformed) => RegistryError::Malformed {
                registry,
                action,
                reason: malformed.to_string(),
            },
        }
    }
}
