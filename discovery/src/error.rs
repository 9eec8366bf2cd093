//! How errors are told: the whole chain in one line.

use std::error::Error;

/// Any error, as the transports give it.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// The error and all its sources, each said once: `a: b: c`.
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
