//! The set of endpoints, updated from a registry's answers. Unchanged endpoints stay as they are,
//! missing ones are removed, and many removals at once are delayed.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::protection::RemovalProtection;
use crate::{
    endpoint::{ConnectivityState, Endpoint},
    instance::Instance,
};

/// All endpoints, sorted by ID. Depends on the instances, the time, and the state of connections.
#[derive(Default)]
pub(crate) struct Set {
    endpoints: Vec<Arc<Endpoint>>,
}

/// The result of an update.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) added: Vec<Arc<Instance>>,
    /// Endpoints that are no longer in the set: no new calls.
    pub(crate) removed: Vec<Arc<Endpoint>>,
    /// Endpoints that are no longer listed and stay as a last resort.
    pub(crate) protected: Vec<Arc<Endpoint>>,
}

impl Set {
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Applies a good answer of the registry. It must be sorted by ID.
    pub(crate) fn update(
        &mut self,
        latest: &[Arc<Instance>],
        protection: &RemovalProtection,
        now: Instant,
    ) -> Change {
        let mut change = Change::default();
        let mut next = Vec::with_capacity(latest.len());
        let mut missing = Vec::new();
        let mut addresses = HashSet::with_capacity(latest.len());
        let was_listed = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.missing_since().is_none())
            .count();
        let mut old = std::mem::take(&mut self.endpoints).into_iter().peekable();
        for instance in latest {
            // Two IDs at one address are one process, which gets one share of the calls.
            if !addresses.insert((instance.host.as_str(), instance.port)) {
                continue;
            }
            while let Some(gone) = old.next_if(|endpoint| endpoint.instance().id < instance.id) {
                missing.push(gone);
            }
            let known = old.next_if(|endpoint| endpoint.instance().id == instance.id);
            match known {
                Some(endpoint) if same_address(&endpoint, instance) => {
                    next.push(renew(endpoint, instance));
                }
                moved => {
                    change.removed.extend(moved);
                    change.added.push(Arc::clone(instance));
                    next.push(Arc::new(Endpoint::of(Arc::clone(instance))));
                }
            }
        }
        missing.extend(old);
        self.endpoints = next;
        self.remove(missing, was_listed, protection, now, &mut change);
        change
    }

    /// Removes endpoints that are no longer listed, or protects them.
    fn remove(
        &mut self,
        missing: Vec<Arc<Endpoint>>,
        was_listed: usize,
        protection: &RemovalProtection,
        now: Instant,
        change: &mut Change,
    ) {
        let newly = missing
            .iter()
            .filter(|endpoint| endpoint.missing_since().is_none())
            .count();
        #[allow(clippy::cast_precision_loss)]
        let sudden = newly as f64 > protection.share * was_listed as f64
            || (newly > 0 && self.endpoints.is_empty());
        let before = self.endpoints.len();
        for endpoint in missing {
            let works = endpoint.subchannel().state() == ConnectivityState::Ready;
            if works && endpoint.missing_since().is_some() {
                self.endpoints.push(endpoint);
            } else if works && sudden && !protection.grace.is_zero() {
                let kept = Arc::new(endpoint.renewed(Arc::clone(endpoint.instance()), Some(now)));
                change.protected.push(Arc::clone(&kept));
                self.endpoints.push(kept);
            } else {
                change.removed.push(endpoint);
            }
        }
        if self.endpoints.len() > before {
            self.endpoints
                .sort_by(|a, b| a.instance().id.cmp(&b.instance().id));
        }
    }

    /// Removes endpoints whose grace period is over or whose connection no longer works. One that
    /// lost its connection stays until an attempt to make it again has failed.
    pub(crate) fn expire(
        &mut self,
        protection: &RemovalProtection,
        now: Instant,
    ) -> Vec<Arc<Endpoint>> {
        self.endpoints
            .extract_if(.., |endpoint| {
                endpoint.missing_since().is_some_and(|since| {
                    now >= since + protection.grace
                        || !matches!(
                            endpoint.subchannel().state(),
                            ConnectivityState::Ready | ConnectivityState::Connecting
                        )
                })
            })
            .collect()
    }

    /// The end of the next grace period.
    pub(crate) fn next_expiry(&self, protection: &RemovalProtection) -> Option<Instant> {
        self.endpoints
            .iter()
            .filter_map(|endpoint| endpoint.missing_since())
            .map(|since| since + protection.grace)
            .min()
    }
}

fn same_address(endpoint: &Endpoint, instance: &Instance) -> bool {
    let known = endpoint.instance();
    known.host == instance.host && known.port == instance.port
}

fn renew(endpoint: Arc<Endpoint>, instance: &Arc<Instance>) -> Arc<Endpoint> {
    let same = Arc::ptr_eq(endpoint.instance(), instance) || endpoint.instance() == instance;
    if same && endpoint.missing_since().is_none() {
        endpoint
    } else {
        Arc::new(endpoint.renewed(Arc::clone(instance), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(list: &[(&str, u16)]) -> Vec<Arc<Instance>> {
        list.iter()
            .map(|(id, port)| {
                let mut instance = Instance::new("127.0.0.1", *port).unwrap();
                (*id).clone_into(&mut instance.id);
                Arc::new(instance)
            })
            .collect()
    }

    fn ids(endpoints: &[Arc<Endpoint>]) -> Vec<&str> {
        endpoints.iter().map(|e| e.instance().id.as_str()).collect()
    }

    fn update(set: &mut Set, list: &[(&str, u16)]) -> Change {
        set.update(
            &instances(list),
            &RemovalProtection::default(),
            Instant::now(),
        )
    }

    #[test]
    fn what_stays_keeps_its_connection_and_history() {
        let mut set = Set::default();
        update(&mut set, &[("a", 1), ("b", 2), ("c", 3)]);
        let before = set.endpoints().to_vec();
        let change = update(&mut set, &[("a", 1), ("c", 3), ("d", 4)]);
        assert_eq!(ids(set.endpoints()), ["a", "c", "d"]);
        assert_eq!(ids(&change.removed), ["b"]);
        assert!(Arc::ptr_eq(&set.endpoints()[0], &before[0]));
        assert!(Arc::ptr_eq(&set.endpoints()[1], &before[2]));
    }

    #[test]
    fn another_address_under_the_same_id_is_another_process() {
        let mut set = Set::default();
        update(&mut set, &[("a", 1)]);
        let before = Arc::clone(&set.endpoints()[0]);
        let change = update(&mut set, &[("a", 2)]);
        assert!(!set.endpoints()[0].is(&before));
        assert_eq!(ids(&change.removed), ["a"]);
    }

    #[test]
    fn other_metadata_keeps_the_connection() {
        let mut set = Set::default();
        let mut list = instances(&[("a", 1)]);
        set.update(&list, &RemovalProtection::default(), Instant::now());
        let before = Arc::clone(&set.endpoints()[0]);
        Arc::make_mut(&mut list[0]).weight = 7;
        set.update(&list, &RemovalProtection::default(), Instant::now());
        assert!(set.endpoints()[0].is(&before));
        assert_eq!(set.endpoints()[0].instance().weight, 7);
    }

    #[test]
    fn two_ids_at_one_address_are_one_endpoint() {
        let mut set = Set::default();
        update(&mut set, &[("a", 1), ("b", 1), ("c", 2)]);
        assert_eq!(ids(set.endpoints()), ["a", "c"]);
    }

    #[test]
    fn an_emptied_set_removes_endpoints_without_connection() {
        let mut set = Set::default();
        update(&mut set, &[("a", 1), ("b", 2)]);
        let change = update(&mut set, &[]);
        assert_eq!(ids(&change.removed), ["a", "b"]);
        assert!(set.endpoints().is_empty() && change.protected.is_empty());
    }
}
