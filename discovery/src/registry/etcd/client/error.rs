//! The meaning of a call's failed status.

use std::error::Error as _;

use tonic::{Code, Status};

use crate::{error::chain, registry::RegistryError};

/// The failure of a call: of the transport, of the credentials, or of the request.
pub(super) fn error(registry: &str, action: &str, status: &Status) -> RegistryError {
    let (registry, action) = (registry.to_owned(), action.to_owned());
    // A status that the server sent has no source.
    if let Some(source) = status.source() {
        return RegistryError::Unreachable {
            registry,
            action,
            source: chain(source).into(),
        };
    }
    let reason = one_line(status.message());
    if is_denial(status) {
        return RegistryError::Denied {
            registry,
            action,
            reason,
        };
    }
    RegistryError::Refused {
        registry,
        action,
        code: name(status.code()).to_owned(),
        reason,
        transient: is_transient(status.code()),
    }
}

/// True if the call may succeed with another token: this one has expired, or the server that issued it
/// was restarted, or users were changed.
pub(super) fn wants_new_token(status: &Status) -> bool {
    status.source().is_none()
        && (status.code() == Code::Unauthenticated
            || [
                "invalid auth token",
                "user name is empty",
                "revision of auth store is old",
            ]
            .iter()
            .any(|text| status.message().contains(text)))
}

/// True if another member may answer the call: this one has no leader, is overloaded or is a learner.
pub(super) fn blames_member(status: &Status) -> bool {
    status.source().is_none() && status.code() == Code::Unavailable
}

fn is_denial(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated | Code::PermissionDenied
    ) || [
        "user name is empty",
        "authentication failed",
        "invalid auth token",
    ]
    .iter()
    .any(|text| status.message().contains(text))
}

fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
    )
}

/// The code as the gRPC specification writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The first line of a text, without control characters and cut to a length that suits a log.
fn one_line(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
    if line.is_empty() {
        "no reason given".to_owned()
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> RegistryError {
        error("etcd://a", "watch trim", &Status::new(code, message))
    }

    #[test]
    fn a_denial_is_told_from_other_refusals() {
        // The texts and codes of etcd 3.5.
        for (code, message) in [
            (Code::InvalidArgument, "etcdserver: user name is empty"),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
            ),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
            (Code::PermissionDenied, "etcdserver: permission denied"),
        ] {
            let error = of(code, message);
            assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
        }
    }

    #[test]
    fn a_refusal_names_its_code_and_may_pass_if_the_server_is_to_blame() {
        let error = of(Code::Unavailable, "etcdserver: no leader\nmore");
        assert_eq!(
            error.to_string(),
            "etcd://a refused to watch trim: UNAVAILABLE: etcdserver: no leader"
        );
        assert!(error.is_transient());
        assert!(!of(Code::InvalidArgument, "request is too large").is_transient());
    }

    #[test]
    fn a_broken_transport_is_not_an_answer() {
        let status = Status::from_error("connection reset".into());
        let error = error("etcd://a", "watch trim", &status);
        assert!(
            matches!(error, RegistryError::Unreachable { .. }),
            "{error}"
        );
        assert!(chain(&error).contains("connection reset"));
        assert!(!blames_member(&status) && !wants_new_token(&status));
    }
}
