//! The errors of registries.

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
            Self::Unreachable { .. } | Self::Malformed { .. } => true,
            Self::Refused { transient, .. } => *transient,
            _ => false,
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
