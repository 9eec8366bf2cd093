//! Deterministic subsetting: each client keeps to a few instances of a large fleet.
//!
//! A thousand clients with a connection to each of ten thousand instances are ten million
//! connections that carry next to nothing. With a subset every client has `size` of them. Which
//! ones is decided by rendezvous hashing, as in gRPC's A68: the instances whose IDs, hashed together
//! with the client's, come first. Clients differ, so that all instances get their share; and when
//! one instance leaves or comes, a client's subset changes by one at most.
//!
//! Beyond A68, an instance that cannot be connected to has the next in rank as its stand-in for as
//! long as that lasts: a client whose subset has died at once, while the registry has not noticed,
//! would otherwise fail every call amid a healthy fleet. There are as many stand-ins as places at
//! most, so that an outage of everything does not make every client knock at every door.

use std::{collections::HashSet, sync::Arc};

use crate::{hash, instance::Instance};

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subset {
    size: usize,
    client: u64,
}

impl Subset {
    pub(crate) fn new(size: usize, client: &[u8]) -> Self {
        Self {
            size,
            client: hash::bytes(client),
        }
    }

    /// The client's part of these, in their order, with a stand-in for each that is `down`. Of several
    /// IDs at one address the first one counts: they will be one endpoint.
    pub(crate) fn choose(
        &self,
        instances: &[Arc<Instance>],
        down: &HashSet<&str>,
    ) -> Vec<Arc<Instance>> {
        let mut addresses = HashSet::with_capacity(instances.len());
        let mut ranked: Vec<(u64, usize)> = instances
            .iter()
            .enumerate()
            .filter(|(_, instance)| addresses.insert((instance.host.as_str(), instance.port)))
            .map(|(index, instance)| (self.rank(instance), index))
            .collect();
        let most = self.size.saturating_mul(2);
        if ranked.len() > most {
            ranked.select_nth_unstable(most);
            ranked.truncate(most);
        }
        ranked.sort_unstable();
        let mut places = self.size;
        let mut chosen = Vec::with_capacity(self.size.min(ranked.len()));
        for (_, index) in ranked {
            if places == 0 {
                break;
            }
            places -= usize::from(!down.contains(instances[index].id.as_str()));
            chosen.push(index);
        }
        chosen.sort_unstable();
        chosen
            .into_iter()
            .map(|index| Arc::clone(&instances[index]))
            .collect()
    }

    fn rank(&self, instance: &Instance) -> u64 {
        hash::nth(self.client ^ hash::bytes(instance.id.as_bytes()), 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn fleet(count: u16) -> Vec<Arc<Instance>> {
        (1..=count)
            .map(|port| Arc::new(Instance::new("10.0.0.1", port).unwrap()))
            .collect()
    }

    /// The subset where nobody is down.
    fn choose(subset: Subset, fleet: &[Arc<Instance>]) -> Vec<Arc<Instance>> {
        subset.choose(fleet, &HashSet::new())
    }

    fn ids(instances: &[Arc<Instance>]) -> HashSet<&str> {
        instances.iter().map(|i| i.id.as_str()).collect()
    }

    #[test]
    fn a_small_fleet_is_taken_whole_and_in_order() {
        let fleet = fleet(5);
        for size in [5, 6] {
            assert_eq!(choose(Subset::new(size, b"a"), &fleet), fleet);
        }
        assert!(choose(Subset::new(5, b"a"), &[]).is_empty());
    }

    #[test]
    fn two_ids_at_one_address_take_one_place() {
        let mut fleet = fleet(9);
        let mut again = (*fleet[0]).clone();
        again.id = "again".to_owned();
        fleet.push(Arc::new(again));
        let chosen = choose(Subset::new(9, b"a"), &fleet);
        assert_eq!(chosen.len(), 9);
        assert!(!ids(&chosen).contains("again"));
    }

    #[test]
    fn each_that_is_down_has_a_stand_in_up_to_twice_the_size() {
        let fleet = fleet(100);
        let subset = Subset::new(10, b"a");
        let usual = choose(subset, &fleet);
        let mut down: HashSet<&str> = usual[..3].iter().map(|i| i.id.as_str()).collect();
        let with_stand_ins = subset.choose(&fleet, &down);
        assert_eq!(with_stand_ins.len(), 13);
        assert!(ids(&usual).is_subset(&ids(&with_stand_ins)));
        down.extend(ids(&fleet));
        assert_eq!(subset.choose(&fleet, &down).len(), 20);
    }

    /// As even as chance makes it: each of 100 instances is in 20 of every 100 subsets.
    #[test]
    fn many_clients_spread_over_all() {
        let fleet = fleet(100);
        let mut counts: HashMap<String, f64> = HashMap::new();
        let clients = 1_000;
        for client in 0..clients {
            let subset = Subset::new(20, format!("client-{client}").as_bytes());
            for instance in choose(subset, &fleet) {
                *counts.entry(instance.id.clone()).or_default() += 1.0;
            }
        }
        assert_eq!(counts.len(), 100);
        let mean = 0.2 * f64::from(clients);
        let variance = counts.values().map(|c| (c - mean).powi(2)).sum::<f64>() / 100.0;
        let variation = variance.sqrt() / mean;
        assert!(variation < 0.08, "coefficient of variation {variation}");
    }

    proptest! {
        /// Without one instance, whichever it is, at most that one is replaced; with it back, the
        /// subset is what it was.
        #[test]
        fn one_that_leaves_changes_at_most_one(
            count in 2_u16..300,
            size in 1_usize..40,
            gone: prop::sample::Index,
            client: u64,
        ) {
            let fleet = fleet(count);
            let subset = Subset::new(size, &client.to_le_bytes());
            let before = choose(subset, &fleet);
            prop_assert_eq!(before.len(), size.min(fleet.len()));
            prop_assert!(before.is_sorted_by_key(|i| i.port));
            let mut left = fleet.clone();
            let gone = left.remove(gone.index(left.len()));
            let after = choose(subset, &left);
            let (before, after) = (ids(&before), ids(&after));
            for lost in before.difference(&after) {
                prop_assert_eq!(*lost, gone.id.as_str());
            }
            prop_assert!(after.difference(&before).count() <= 1);
        }
    }
}
