//! What can go wrong between us and a registry.

use crate::{BoxError, instance::InvalidInstance};

/// A failed call to a registry, or an input it could never take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry's URL names none.
    #[error("invalid registry URL {url:?}: {reason}")]
    InvalidUrl {
        /// The URL as given, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting (flag, environment variable, builder argument) that cannot be used.
    #[error("invalid setting for {registry}: {reason}")]
    InvalidSetting {
        /// The registry's name.
        registry: String,
        /// The setting and what is wrong with it.
        reason: String,
    },
    /// A fixed instance whose address cannot be connected to.
    #[error(transparent)]
    InvalidInstance(#[from] InvalidInstance),
    /// No answer: the connection failed, broke or took too long.
    #[error("{registry} did not answer while trying to {action}")]
    Unreachable {
        /// The registry's name.
        registry: String,
        /// What was tried.
        action: String,
        /// The transport's own error.
        #[source]
        source: BoxError,
    },
    /// The credentials do not allow it, or there are none.
    #[error("{registry} denied permission to {action}: {reason}")]
    Denied {
        /// The registry's name.
        registry: String,
        /// What was tried.
        action: String,
        /// The registry's own words.
        reason: String,
    },
    /// The registry answered with an error.
    #[error("{registry} refused to {action}: status {status}: {reason}")]
    Refused {
        /// The registry's name.
        registry: String,
        /// What was tried.
        action: String,
        /// The HTTP status, or the registry's own code.
        status: u16,
        /// The registry's own words, cut to a line.
        reason: String,
    },
    /// The registry answered something that is not an answer.
    #[error("{registry} gave an unusable answer while trying to {action}: {reason}")]
    Malformed {
        /// The registry's name.
        registry: String,
        /// What was tried.
        action: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The registry no longer knows the instance.
    #[error("{registry} no longer knows {id}")]
    Forgotten {
        /// The registry's name.
        registry: String,
        /// The instance's ID.
        id: String,
    },
    /// The registry holds something else under the instance's ID.
    #[error("{registry} holds another registration of {id}: {found}")]
    Overwritten {
        /// The registry's name.
        registry: String,
        /// The instance's ID.
        id: String,
        /// What is registered there now.
        found: String,
    },
    /// The registry has no such operation.
    #[error("{registry} cannot {action}")]
    Unsupported {
        /// The registry's name.
        registry: String,
        /// What was tried.
        action: String,
    },
}

impl RegistryError {
    /// Whether asking again may get another answer: the registry was away, or failed by its own
    /// account.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Malformed { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            _ => false,
        }
    }

    pub(crate) fn invalid_url(url: &str, reason: impl Into<String>) -> Self {
        // Whoever logs this must not log a password.
        let url = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => url.to_owned(),
        };
        Self::InvalidUrl {
            url,
            reason: reason.into(),
        }
    }
}
