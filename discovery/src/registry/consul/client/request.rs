//! A request to Consul, and names as path segments.

use std::{fmt, time::Duration};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

/// The bytes that a path segment keeps as they are.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request to Consul.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Starts with `/v1`. Names in it are encoded by [`segment`].
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, &'a str)>,
    pub(crate) body: Option<Bytes>,
    /// Time limit until the answer begins. `None`: the client's limit for answers given at once.
    pub(crate) held: Option<Duration>,
    /// The purpose, for messages: "while trying to {action}".
    pub(crate) action: &'a str,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: Method, path: String, action: &'a str) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            held: None,
            action,
        }
    }
}

/// Checks that a name can be a part of a path. Consul's server sees the slashes and dots of an
/// encoded name, and redirects a path that it would write otherwise.
pub(crate) fn pathable(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("is empty")
    } else if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Err("has an empty, `.` or `..` part and cannot stand in a URL path")
    } else {
        Ok(())
    }
}

/// Encodes any text as one path segment.
pub(crate) fn segment(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, SEGMENT)
}
