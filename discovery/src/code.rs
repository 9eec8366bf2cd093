//! gRPC's status codes: the vocabulary in which attempts, retries and errors are described.

use std::{fmt, str::FromStr};

macro_rules! codes {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// A gRPC status code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[allow(missing_docs, reason = "the names are gRPC's own")]
        pub enum Code {
            $(#[cfg_attr(feature = "serde", serde(rename = $text))] $name = $number,)*
        }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name as gRPC writes it, for example `UNAVAILABLE`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    Ok = 0 "OK",
    Cancelled = 1 "CANCELLED",
    Unknown = 2 "UNKNOWN",
    InvalidArgument = 3 "INVALID_ARGUMENT",
    DeadlineExceeded = 4 "DEADLINE_EXCEEDED",
    NotFound = 5 "NOT_FOUND",
    AlreadyExists = 6 "ALREADY_EXISTS",
    PermissionDenied = 7 "PERMISSION_DENIED",
    ResourceExhausted = 8 "RESOURCE_EXHAUSTED",
    FailedPrecondition = 9 "FAILED_PRECONDITION",
    Aborted = 10 "ABORTED",
    OutOfRange = 11 "OUT_OF_RANGE",
    Unimplemented = 12 "UNIMPLEMENTED",
    Internal = 13 "INTERNAL",
    Unavailable = 14 "UNAVAILABLE",
    DataLoss = 15 "DATA_LOSS",
    Unauthenticated = 16 "UNAUTHENTICATED",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Code {
    type Err = UnknownCode;

    /// Reads a code's name in any letter case, with `-` or `_` between words.
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let name = text.trim().replace('-', "_").to_ascii_uppercase();
        Self::ALL
            .iter()
            .find(|code| code.name() == name)
            .copied()
            .ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

/// A text that is not the name of a gRPC status code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a gRPC status code; expected a name such as UNAVAILABLE")]
pub struct UnknownCode(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_by_name() {
        for code in Code::ALL {
            let name = code.name().to_lowercase().replace('_', "-");
            assert_eq!(name.parse(), Ok(*code));
        }
        let error = "TEAPOT".parse::<Code>().unwrap_err().to_string();
        assert!(
            error.contains("\"TEAPOT\" is not a gRPC status code"),
            "{error}"
        );
    }
}
