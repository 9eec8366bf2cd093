//! Error types that all parts share, and an error with its sources in one line.

use std::{error::Error, iter::successors};

/// An error of any type, as transports return it.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// A setting whose value cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value}: {expected}")]
#[non_exhaustive]
pub struct InvalidSetting {
    /// The setting, as the builder or policy names it.
    pub setting: &'static str,
    /// The value that was given.
    pub value: String,
    /// The values that are allowed.
    pub expected: &'static str,
}

impl InvalidSetting {
    pub(crate) fn new(
        setting: &'static str,
        value: impl Into<String>,
        expected: &'static str,
    ) -> Self {
        Self {
            setting,
            value: value.into(),
            expected,
        }
    }
}

/// The error and all its sources.
pub(crate) fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        (*error).source()
    })
}

/// The error and all its sources, each once: `a: b: c`.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        // Some libraries repeat the source in their own words.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
}
