//! A request to Consul.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;

/// A request to Consul.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Starts with `/v1`. Names in it are encoded by [`segment`](crate::registry::http::segment).
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
