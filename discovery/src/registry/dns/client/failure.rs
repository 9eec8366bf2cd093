//! A question without a usable answer.

use std::{error::Error, io, time::Duration};

use crate::{
    BoxError,
    registry::{
        RegistryError,
        dns::message::{Question, code_name},
    },
};

#[derive(Debug)]
pub(in super::super) enum Failure {
    /// The connection failed or broke, or no answer came in time.
    Unreachable(BoxError),
    /// The server answered with this response code.
    Code(u16),
    /// The answer does not have the expected form.
    Malformed(String),
}

impl Failure {
    pub(in super::super) fn timeout(limit: Duration) -> Self {
        let text = format!("no answer within {limit:?}");
        Self::Unreachable(io::Error::new(io::ErrorKind::TimedOut, text).into())
    }

    /// The error of a registry whose question to this server failed.
    pub(in super::super) fn into_error(
        self,
        registry: &str,
        question: &Question,
        server: &str,
    ) -> RegistryError {
        let registry = registry.to_owned();
        let kind = question.kind.name();
        let action = format!("look up {} {kind} at {server}", question.name);
        match self {
            Self::Unreachable(source) => RegistryError::Unreachable {
                registry,
                action,
                source,
            },
            Self::Code(code) => RegistryError::Refused {
                registry,
                action,
                code: code_name(code),
                reason: "the server's response code".to_owned(),
                transient: true,
            },
            Self::Malformed(reason) => RegistryError::Malformed {
                registry,
                action,
                reason,
            },
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Unreachable(error.into())
    }
}
