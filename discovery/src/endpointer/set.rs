//! The set of endpoints, updated from a registry's answers. Unchanged endpoints stay as they are, missing
//! ones are removed, and those of many removals at once are kept as a last resort.
//!
//! ```text
//!                 offered again
//!            .-----------------------.
//!            v                       |
//!   new -> offered --many at once--> last resort --failed, refused, limit--> removed
//!            |                       |                                          ^
//!            |                       `--deregistered alone----------------------|
//!            `------------------alone-------------------------------------------'
//! ```

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::protection::RemovalProtection;
use crate::{
    endpoint::{ConnectivityState, Endpoint, LastResort, WatchedHealth},
    instance::{Instance, Withdrawal},
};

/// All endpoints, sorted by ID. Depends on the instances, the time, and the state of connections.
#[derive(Default)]
pub(crate) struct Set {
    endpoints: Vec<Arc<Endpoint>>,
}

/// A good answer of the registry. Each list is sorted by ID.
#[derive(Clone, Copy)]
pub(crate) struct Offer<'a> {
    /// The instances to use.
    pub(crate) chosen: &'a [Arc<Instance>],
    /// The instances that may be used: those that pass their checks, where only those are wanted.
    pub(crate) usable: &'a [Arc<Instance>],
    /// All instances.
    pub(crate) all: &'a [Arc<Instance>],
}

impl Offer<'_> {
    /// The reason why an instance is not among the usable ones, with its description if it is known.
    /// `None` if it is usable, but not chosen.
    pub(super) fn withdrawal(
        &self,
        instance: &Instance,
    ) -> Option<(Withdrawal, Option<&Arc<Instance>>)> {
        if find(self.usable, instance).is_some() {
            return None;
        }
        Some(match find(self.all, instance) {
            None => (Withdrawal::Removed, None),
            Some(known) if known.health.is_lost() => (Withdrawal::Lost, Some(known)),
            Some(known) => (Withdrawal::Failing, Some(known)),
        })
    }
}

fn find<'a>(sorted: &'a [Arc<Instance>], instance: &Instance) -> Option<&'a Arc<Instance>> {
    let at = sorted.binary_search_by(|known| known.id.cmp(&instance.id));
    at.ok()
        .map(|at| &sorted[at])
        .filter(|known| same_address(known, instance))
}

/// The result of an update.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) added: Vec<Arc<Instance>>,
    /// Endpoints that are no longer in the set: no new calls.
    pub(crate) removed: Vec<Arc<Endpoint>>,
    /// Endpoints that are no longer offered and stay as a last resort from now on.
    pub(crate) protected: Vec<Arc<Endpoint>>,
    /// Instances that were kept as a last resort and are offered again.
    pub(crate) returned: Vec<Arc<Instance>>,
}

/// An endpoint that is no longer chosen.
struct Missing {
    endpoint: Arc<Endpoint>,
    withdrawal: Withdrawal,
    /// The description in the registry's last answer.
    instance: Arc<Instance>,
}

impl Missing {
    fn was(&self) -> Option<Withdrawal> {
        self.endpoint
            .last_resort()
            .map(|resort| resort.withdrawal())
    }

    /// True if it was offered until now.
    fn is_new(&self) -> bool {
        self.endpoint.last_resort().is_none()
    }

    /// True if it was kept while still registered, and is deregistered now.
    fn is_deregistered_later(&self) -> bool {
        self.withdrawal == Withdrawal::Removed
            && self.was().is_some_and(|was| was != Withdrawal::Removed)
    }

    /// The endpoint as a last resort.
    fn kept(self, now: Instant) -> Arc<Endpoint> {
        let since = self
            .endpoint
            .last_resort()
            .map_or(now, |resort| resort.since());
        let last_resort = Arc::new(LastResort::new(since, self.withdrawal));
        Arc::new(self.endpoint.renewed(self.instance, Some(last_resort)))
    }
}

impl Set {
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Applies a good answer of the registry.
    pub(crate) fn update(
        &mut self,
        offer: Offer<'_>,
        protection: &RemovalProtection,
        now: Instant,
    ) -> Change {
        let mut change = Change::default();
        let mut next = Vec::with_capacity(offer.chosen.len());
        let mut missing = Vec::new();
        let mut addresses = HashSet::with_capacity(offer.chosen.len());
        let was_offered = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.last_resort().is_none())
            .count();
        let is_running = !self.endpoints.is_empty();
        let mut old = std::mem::take(&mut self.endpoints).into_iter().peekable();
        for instance in offer.chosen {
            // Two IDs at one address are one process, which gets one share of the calls.
            if !addresses.insert((instance.host.as_str(), instance.port)) {
                continue;
            }
            while let Some(gone) = old.next_if(|endpoint| endpoint.instance().id < instance.id) {
                missing.push(gone);
            }
            let known = old.next_if(|endpoint| endpoint.instance().id == instance.id);
            match known {
                Some(endpoint) if same_address(endpoint.instance(), instance) => {
                    if endpoint.last_resort().is_some() {
                        change.returned.push(Arc::clone(instance));
                    }
                    next.push(renew(endpoint, instance));
                }
                moved => {
                    change.removed.extend(moved);
                    change.added.push(Arc::clone(instance));
                    let endpoint = Endpoint::of(Arc::clone(instance));
                    if is_running {
                        endpoint.stats().note_joined();
                    }
                    next.push(Arc::new(endpoint));
                }
            }
        }
        missing.extend(old);
        let mut withdrawn = Vec::with_capacity(missing.len());
        for endpoint in missing {
            let instance = endpoint.instance();
            let replaced = addresses.contains(&(instance.host.as_str(), instance.port));
            match offer.withdrawal(instance) {
                Some((withdrawal, known)) if !replaced => withdrawn.push(Missing {
                    instance: Arc::clone(known.unwrap_or(instance)),
                    endpoint,
                    withdrawal,
                }),
                // Not chosen any longer, or the same process under another ID.
                _ => change.removed.push(endpoint),
            }
        }
        self.endpoints = next;
        self.withdraw(withdrawn, was_offered, protection, now, &mut change);
        change
    }

    /// Removes endpoints that are no longer offered, or keeps them as a last resort.
    fn withdraw(
        &mut self,
        missing: Vec<Missing>,
        was_offered: usize,
        protection: &RemovalProtection,
        now: Instant,
        change: &mut Change,
    ) {
        let count = |counts: fn(&Missing) -> bool| missing.iter().filter(|m| counts(m)).count();
        let newly = count(Missing::is_new);
        let sudden =
            protection.is_sudden(newly, was_offered) || (newly > 0 && self.endpoints.is_empty());
        // The same rule for instances that were kept while registered: one that is deregistered alone
        // goes at once, and the removal of a lost node takes all of its instances.
        let were_registered = count(|m| m.was().is_some_and(|was| was != Withdrawal::Removed));
        let sudden_later =
            protection.is_sudden(count(Missing::is_deregistered_later), were_registered);
        let before = self.endpoints.len();
        for missing in missing {
            if missing.is_new() {
                let subchannel = missing.endpoint.subchannel();
                let works = subchannel.state() == ConnectivityState::Ready
                    && subchannel.watched_health() != WatchedHealth::NotServing;
                if !(works && sudden && protection.is_on()) {
                    change.removed.push(missing.endpoint);
                    continue;
                }
                let kept = missing.kept(now);
                change.protected.push(Arc::clone(&kept));
                self.endpoints.push(kept);
            } else if missing.is_deregistered_later() {
                if sudden_later {
                    let kept = missing.kept(now);
                    change.protected.push(Arc::clone(&kept));
                    self.endpoints.push(kept);
                } else {
                    change.removed.push(missing.endpoint);
                }
            } else {
                self.endpoints.push(missing.endpoint);
            }
        }
        if self.endpoints.len() > before {
            self.endpoints
                .sort_by(|a, b| a.instance().id.cmp(&b.instance().id));
        }
    }

    /// Removes last resorts that failed, whose connection no longer works, or whose time is over, and
    /// returns them with the reason. One that lost its connection stays until an attempt to make it again
    /// has failed.
    pub(crate) fn expire(
        &mut self,
        protection: &RemovalProtection,
        now: Instant,
    ) -> Vec<(Arc<Endpoint>, &'static str)> {
        let mut expired = Vec::new();
        self.endpoints.retain(|endpoint| {
            let Some(last_resort) = endpoint.last_resort() else {
                return true;
            };
            let connected = matches!(
                endpoint.subchannel().state(),
                ConnectivityState::Ready | ConnectivityState::Connecting
            );
            let is_over = protection
                .ends(last_resort.since())
                .is_some_and(|end| now >= end);
            let health = endpoint.subchannel().watched_health();
            let not_serving = health == WatchedHealth::NotServing;
            let reason = last_resort
                .ended()
                .or(not_serving.then(|| health.refusal()).flatten())
                .or((!connected).then_some("it cannot be connected to"))
                .or(is_over.then_some("the limit of its protection is reached"));
            expired.extend(reason.map(|reason| (Arc::clone(endpoint), reason)));
            reason.is_none()
        });
        expired
    }

    /// The time of the next expiry by the limit.
    pub(crate) fn next_expiry(&self, protection: &RemovalProtection) -> Option<Instant> {
        self.endpoints
            .iter()
            .filter_map(|endpoint| protection.ends(endpoint.last_resort()?.since()))
            .min()
    }
}

fn same_address(known: &Instance, instance: &Instance) -> bool {
    known.host == instance.host && known.port == instance.port
}

fn renew(endpoint: Arc<Endpoint>, instance: &Arc<Instance>) -> Arc<Endpoint> {
    let same = Arc::ptr_eq(endpoint.instance(), instance) || endpoint.instance() == instance;
    if same && endpoint.last_resort().is_none() {
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
        apply(set, &instances(list))
    }

    fn apply(set: &mut Set, all: &[Arc<Instance>]) -> Change {
        let usable: Vec<_> = all
            .iter()
            .filter(|i| i.health.is_usable())
            .cloned()
            .collect();
        let offer = Offer {
            chosen: &usable,
            usable: &usable,
            all,
        };
        set.update(offer, &RemovalProtection::default(), Instant::now())
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
    fn those_that_join_a_running_set_warm_up_and_the_first_set_does_not() {
        let mut set = Set::default();
        update(&mut set, &[("a", 1), ("b", 2)]);
        update(&mut set, &[("a", 1), ("b", 3), ("c", 4)]);
        let now = Instant::now();
        let warms_up = |e: &Arc<Endpoint>| e.stats().since_joined(now).is_some();
        let seen: Vec<_> = set.endpoints().iter().map(warms_up).collect();
        assert_eq!(seen, [false, true, true]);
    }

    #[test]
    fn other_metadata_keeps_the_connection() {
        let mut set = Set::default();
        let mut list = instances(&[("a", 1)]);
        apply(&mut set, &list);
        let before = Arc::clone(&set.endpoints()[0]);
        Arc::make_mut(&mut list[0]).weight = 7;
        apply(&mut set, &list);
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
