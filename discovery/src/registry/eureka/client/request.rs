//! A request to Eureka.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;

/// A request to Eureka.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// After the base path. Starts with a slash. Names in it are encoded by
    /// [`segment`](crate::registry::http::segment).
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Option<Bytes>,
    /// Time limit for the answer of one peer. `None`: the configuration's.
    pub(crate) limit: Option<Duration>,
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
            limit: None,
            action,
        }
    }
}
