//! The errors of registries.

use std::time::Duration;

use crate::{BoxError, instance::InvalidInstance};

/// A failed call to a registry, or an input that no registry can take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The URL does not name a registry that this build can open.
    #[error("invalid registry URL {url:?}: {reason}")]
    InvalidUrl {
        /// The URL as given, without credentials.
        url: String,
        /// The reason.
        reason: String,
    },
    /// A setting (flag, environment variable, builder argument) that cannot be used.
    #[error("invalid setting for {registry}: {reason}")]
    InvalidSetting {
        /// The registry's name.
        registry: String,
        /// The setting and the reason.
        reason: String,
    },
    /// A static instance whose address cannot be connected to.
    #[error(transparent)]
    InvalidInstance(#[from] InvalidInstance),
    /// The call needs a tokio runtime and was made outside of one.
    #[error(
        "cannot {action} outside a tokio runtime: call it in async code, or after Runtime::enter()"
    )]
    NoRuntime {
        /// The call.
        action: String,
    },
    /// No answer: the connection failed, broke or took too long.
    #[error("{registry} did not answer while trying to {action}")]
    Unreachable {
        /// The registry's name.
        registry: String,
        /// The call.
        action: String,
        /// The transport's own error.
        #[source]
        source: BoxError,
    },
    /// The credentials are missing or do not allow the call.
    #[error("{registry} denied permission to {action}: {reason}")]
    Denied {
        /// The registry's name.
        registry: String,
        /// The call.
        action: String,
        /// The registry's own text.
        reason: String,
    },
    /// The registry answered with an error.
    #[error("{registry} refused to {action}: {code}: {reason}")]
    Refused {
        /// The registry's name.
        registry: String,
        /// The call.
        action: String,
        /// The registry's own code as its tools write it, for example `status 400` or `NoAuth`.
        code: String,
        /// The registry's own text, cut to a line.
        reason: String,
        /// True if the same call may succeed later.
        transient: bool,
    },
    /// The registry is overloaded and states when to ask again.
    #[error(
        "{registry} is too busy to {action} and asks to wait {retry_after:?}: {code}: {reason}"
    )]
    Busy {
        /// The registry's name.
        registry: String,
        /// The call.
        action: String,
        /// The registry's own code, as in [`Refused`](Self::Refused).
        code: String,
        /// The registry's own text, cut to a line.
        reason: String,
        /// The time to wait before the next request.
        retry_after: Duration,
    },
    /// The registry's answer does not have the expected form.
    #[error("{registry} gave an unusable answer while trying to {action}: {reason}")]
    Malformed {
        /// The registry's name.
        registry: String,
        /// The call.
        action: String,
        /// The reason.
        reason: String,
    },
    /// The registry no longer holds the registration.
    #[error("{registry} no longer holds the registration of {id}")]
    Forgotten {
        /// The registry's name.
        registry: String,
        /// The instance's ID.
        id: String,
    },
    /// The registry accepted the registration, but does not show it to consumers.
    #[error("{registry} holds the registration of {id}, but does not show it to consumers")]
    Invisible {
        /// The registry's name.
        registry: String,
        /// The instance's ID.
        id: String,
    },
    /// The registry holds another registration under the instance's ID.
    #[error("{registry} holds another registration of {id}: {found}")]
    Overwritten {
        /// The registry's name.
        registry: String,
        /// The instance's ID.
        id: String,
        /// The registration found.
        found: String,
    },
    /// The registry does not have this operation.
    #[error("{registry} cannot {action}")]
    Unsupported {
        /// The registry's name.
        registry: String,
        /// The call.
        action: String,
    },
}

impl RegistryError {
    /// True if the same call may succeed later: the registry was unreachable, overloaded or failed by
    /// itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Malformed { .. } | Self::Busy { .. } => true,
            Self::Refused { transient, .. } => *transient,
            _ => false,
        }
    }

    /// The time to wait before the next request, if the registry states one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// A setting that cannot be used.
    pub(crate) fn invalid_setting(registry: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidSetting {
            registry: registry.into(),
            reason: reason.into(),
        }
    }

    /// An invalid URL. Removes a password from it, because errors are logged.
    pub(crate) fn invalid_url(url: &str, reason: impl Into<String>) -> Self {
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
