//! The error and the warnings of a service config, with the place in the text.

use std::{borrow::Cow, fmt};

/// A place in the text of a service config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The line, counted from 1.
    pub(super) line: usize,
    /// The column in characters, counted from 1.
    pub(super) column: usize,
    /// The path of the field, such as `methodConfig[0].timeout`; empty for the whole document.
    pub(super) field: String,
}

impl Place {
    /// The place of the byte at `offset` of `document`.
    pub(super) fn at(document: &str, offset: usize, field: &str) -> Self {
        let before = document.get(..offset).unwrap_or(document);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            field: field.to_owned(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        f.write_str(if self.field.is_empty() {
            "the service config"
        } else {
            &self.field
        })
    }
}

/// A service config that cannot be used: the place, the value, and the values that are allowed.
///
/// ```
/// # use discovery::config::ServiceConfig;
/// let error = ServiceConfig::parse(r#"{"methodConfig": [{"timeout": "soon"}]}"#).unwrap_err();
/// assert_eq!((error.line(), error.field()), (1, "methodConfig[0].timeout"));
/// assert!(error.to_string().contains(r#"is "soon": expected seconds"#));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} is {value}: {expected}")]
pub struct ConfigError {
    place: Place,
    value: String,
    expected: Cow<'static, str>,
}

impl ConfigError {
    pub(super) fn new(place: Place, value: String, expected: impl Into<Cow<'static, str>>) -> Self {
        Self {
            place,
            value,
            expected: expected.into(),
        }
    }

    /// The line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.place.column
    }

    /// The path of the field, such as `methodConfig[0].timeout`; empty for the whole document.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.place.field
    }
}

/// A part of a service config that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    place: Place,
    reason: Cow<'static, str>,
}

impl ConfigWarning {
    pub(super) fn new(place: Place, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            place,
            reason: reason.into(),
        }
    }

    /// The path of the field.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.place.field
    }
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.reason)
    }
}
