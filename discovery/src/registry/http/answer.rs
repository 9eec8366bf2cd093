//! An answer of a registry.

use std::time::Duration;

use reqwest::{StatusCode, header::HeaderMap};

/// A longer `Retry-After` counts as this time, because the overload may be over sooner.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// An answer of any status except 401 and 403.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The time after which to ask again, as the registry or a proxy states it in seconds.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
    }

    /// True if the registry's own text contains these words.
    #[cfg(feature = "consul")]
    pub(crate) fn contains(&self, words: &str) -> bool {
        self.reason().contains(words)
    }

    /// The registry's own text, cut to one line for logs.
    pub(crate) fn reason(&self) -> String {
        if self.status.is_redirection() {
            return "redirects are not followed; check that the address is the registry's own"
                .to_owned();
        }
        let line = one_line(&String::from_utf8_lossy(&self.body));
        if line.is_empty() {
            "no reason given".to_owned()
        } else {
            line
        }
    }
}

/// The first line of a text, without control characters and cut to a length that suits a log.
pub(crate) fn one_line(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}
