//! The policy of each method, as a call takes it once at its start. A service config replaces all of
//! them together; calls under way keep theirs.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderName, Method};

use super::options::Target;
#[cfg(feature = "service-config")]
use crate::config::PathName;
use crate::{
    ejection::EjectionPolicy,
    hash::{self, HashKey},
    retry::{RetryPolicy, throttle::RetryLimit},
};

/// The policy of one method.
#[derive(Debug)]
pub(crate) struct MethodPolicy {
    /// Attempts, time and backoff. Its set of idempotent methods is empty.
    pub(crate) retry: RetryPolicy,
    /// True if the method may be executed twice, false if it must not be; `None` leaves it to the
    /// request.
    pub(crate) idempotent: Option<bool>,
    /// True if its request or response is declared to be a stream.
    pub(crate) streaming: bool,
    /// True if a call waits for an instance when there is none.
    pub(crate) wait_for_ready: bool,
    /// Time of a stream, which has no time of its own otherwise.
    pub(crate) stream_timeout: Option<Duration>,
    pub(crate) max_request: Option<usize>,
    pub(crate) max_response: Option<usize>,
    /// The limit of retries, which all methods share.
    pub(crate) limit: Arc<RetryLimit>,
    /// The routes of the method, the first one first.
    #[cfg(feature = "service-config")]
    pub(crate) routes: Vec<Arc<super::route::Route>>,
}

impl MethodPolicy {
    /// The instances that a call of the method may use, if a route says so.
    #[cfg(feature = "service-config")]
    pub(super) fn target(&self, headers: &HeaderMap, key: Option<u64>) -> Option<Target> {
        let route = self.routes.iter().find(|route| route.matches(headers))?;
        route.target(key)
    }

    #[cfg(not(feature = "service-config"))]
    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(super) fn target(&self, _: &HeaderMap, _: Option<u64>) -> Option<Target> {
        None
    }
}

/// The policies of all methods.
#[derive(Debug)]
pub(crate) struct Policies {
    default: Arc<MethodPolicy>,
    methods: Table,
    services: Table,
    /// The policies of requests of plain HTTP, the most exact first.
    #[cfg(feature = "service-config")]
    paths: Vec<(PathName, Arc<MethodPolicy>)>,
    pub(crate) ejection: Arc<EjectionPolicy>,
    /// The header whose value is the key of calls that have none.
    pub(crate) hash_header: Option<HeaderName>,
}

impl Policies {
    pub(crate) fn new(default: MethodPolicy, ejection: Arc<EjectionPolicy>) -> Self {
        Self {
            default: Arc::new(default),
            methods: Table::default(),
            services: Table::default(),
            #[cfg(feature = "service-config")]
            paths: Vec::new(),
            ejection,
            hash_header: None,
        }
    }

    /// Adds the policy of a method, by its path.
    pub(crate) fn add_method(&mut self, path: &str, policy: MethodPolicy) {
        self.methods.insert(path, policy);
    }

    /// Adds the policy of all other methods of a service, by its path without the method.
    #[cfg(feature = "service-config")]
    pub(crate) fn add_service(&mut self, path: &str, policy: MethodPolicy) {
        self.services.insert(path, policy);
    }

    /// Adds the policy of requests of plain HTTP.
    #[cfg(feature = "service-config")]
    pub(crate) fn add_path(&mut self, name: PathName, policy: MethodPolicy) {
        let exactness = name.exactness();
        let index = self
            .paths
            .partition_point(|(known, _)| known.exactness() >= exactness);
        self.paths.insert(index, (name, Arc::new(policy)));
    }

    /// The policy of a method, by its path and the hash of it, or of a request of plain HTTP: the most
    /// exact one.
    pub(crate) fn of(&self, method: &Method, path: &str, hash: u64) -> &Arc<MethodPolicy> {
        #[cfg(feature = "service-config")]
        if let Some((_, policy)) = self
            .paths
            .iter()
            .find(|(name, _)| name.matches(method, path))
        {
            return policy;
        }
        #[cfg(not(feature = "service-config"))]
        let _ = method;
        if let Some(policy) = self.methods.get(path, hash) {
            return policy;
        }
        if self.services.is_empty() {
            return &self.default;
        }
        let service = path.rsplit_once('/').map(|(service, _method)| service);
        service
            .and_then(|service| self.services.get(service, hash::bytes(service.as_bytes())))
            .unwrap_or(&self.default)
    }

    /// The key of a call with these headers, if it has none of its own: the hash of the header's values,
    /// joined by commas (gRFC A76).
    pub(crate) fn key(&self, headers: &HeaderMap) -> Option<HashKey> {
        let mut values = headers.get_all(self.hash_header.as_ref()?).iter();
        let first = values.next()?;
        let mut rest = values.peekable();
        if rest.peek().is_none() {
            return Some(HashKey::of(first.as_bytes()));
        }
        let mut joined = first.as_bytes().to_vec();
        for value in rest {
            joined.push(b',');
            joined.extend_from_slice(value.as_bytes());
        }
        Some(HashKey::of(&joined))
    }

    /// The policy of the methods that no entry names.
    pub(crate) fn default_policy(&self) -> &Arc<MethodPolicy> {
        &self.default
    }

    /// Names of plain HTTP with policies of their own, the most exact first.
    #[cfg(feature = "service-config")]
    pub(crate) fn paths(&self) -> &[(PathName, Arc<MethodPolicy>)] {
        &self.paths
    }

    /// Paths with policies of their own, sorted: methods, then services.
    pub(crate) fn named(&self) -> [Vec<(&str, &MethodPolicy)>; 2] {
        [self.methods.sorted(), self.services.sorted()]
    }
}

/// Policies by path.
#[derive(Debug, Default)]
struct Table(HashMap<u64, Vec<Entry>, BuildHasherDefault<Identity>>);

type Entry = (Box<str>, Arc<MethodPolicy>);

impl Table {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, path: &str, policy: MethodPolicy) {
        let entries = self.0.entry(hash::bytes(path.as_bytes())).or_default();
        entries.push((path.into(), Arc::new(policy)));
    }

    fn get(&self, path: &str, hash: u64) -> Option<&Arc<MethodPolicy>> {
        let entries = self.0.get(&hash)?.iter();
        // Paths of other methods may have the same hash.
        entries
            .filter(|(known, _)| **known == *path)
            .map(|(_, policy)| policy)
            .next()
    }

    fn sorted(&self) -> Vec<(&str, &MethodPolicy)> {
        let entries = self.0.values().flatten();
        let mut sorted: Vec<_> = entries.map(|(path, policy)| (&**path, &**policy)).collect();
        sorted.sort_by_key(|(path, _)| *path);
        sorted
    }
}

/// The hash of a path is its key already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash::bytes(bytes);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}
