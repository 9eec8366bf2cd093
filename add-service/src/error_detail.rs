//! How much an error says to the caller. Addresses of instances, the registry's URL and its reasons are
//! for operators: the log always has them.

use bootstrap::Thinned;
use clap::ValueEnum;
use tonic::{Code, Status};
use tracing::warn;

static FAILED: Thinned = Thinned::new();

/// How much an error says to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ErrorDetail {
    /// Says what failed, without addresses
    Brief,
    /// Says why: each attempt, with the instance's address, and the registry's error
    Full,
}

impl ErrorDetail {
    /// The error for the caller of a call to the trim service that failed with `status`:
    /// `DEADLINE_EXCEEDED` or UNAVAILABLE. The log gets all of it.
    pub(crate) fn of_call(self, status: Status) -> Status {
        if let Some(suppressed) = FAILED.line() {
            let (code, message) = (status.code(), status.message());
            warn!(
                ?code,
                suppressed, "a call to the trim service failed: {message}"
            );
        }
        match (status.code(), self) {
            (Code::DeadlineExceeded | Code::Unavailable, Self::Full) => status,
            (code, Self::Full) => {
                let message = format!("the trim service failed: {code:?}: {}", status.message());
                Status::unavailable(message)
            }
            (Code::DeadlineExceeded, Self::Brief) => {
                Status::deadline_exceeded("the trim service did not answer by the deadline")
            }
            (_, Self::Brief) => Status::unavailable("no instance of the trim service could answer"),
        }
    }

    /// This text, if the caller may see it.
    pub(crate) fn reason(self, text: impl FnOnce() -> String) -> String {
        match self {
            Self::Brief => String::new(),
            Self::Full => text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brief_error_names_no_address() {
        let secret = "consul://10.0.0.1:8500: Permission denied";
        for (code, expected) in [
            (Code::Unavailable, Code::Unavailable),
            (Code::DeadlineExceeded, Code::DeadlineExceeded),
            (Code::PermissionDenied, Code::Unavailable),
        ] {
            let brief = ErrorDetail::Brief.of_call(Status::new(code, secret));
            assert_eq!(brief.code(), expected);
            assert!(!brief.message().contains("10.0.0.1"), "{brief:?}");
            assert!(!brief.message().contains("denied"), "{brief:?}");
            let full = ErrorDetail::Full.of_call(Status::new(code, secret));
            assert_eq!(full.code(), expected);
            assert!(full.message().ends_with(secret), "{full:?}");
        }
    }
}
