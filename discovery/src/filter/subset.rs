//! Deterministic subsetting: each client uses a few instances of a large set.
//!
//! A thousand clients with a connection to each of ten thousand instances have ten million nearly idle
//! connections. With a subset every client connects to `size` instances. Rendezvous hashing selects
//! them, as in gRFC A68: each instance's ID is hashed with the client's, and the lowest hashes are
//! chosen. Clients have different subsets, so that the load is spread over all instances. The addition
//! or removal of one instance changes a subset by at most one.
//!
//! Unlike in A68, an unreachable instance is replaced by the next in rank until it is reachable again.
//! Otherwise, if all instances of a subset fail before the registry notices, every call of the client
//! would fail although other instances are healthy. A replacement that is unreachable is itself
//! replaced: a client whose whole zone is down goes on until it has `size` instances that it can reach,
//! or has tried all. The pace of attempts is limited elsewhere.

use std::{collections::HashSet, sync::Arc};

use crate::{hash, instance::Instance};

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
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

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The indices of `instances` in the client's order of preference. Of several IDs at one address
    /// the first is used: they become one endpoint.
    pub(crate) fn ranking(&self, instances: &[Arc<Instance>]) -> Vec<usize> {
        let mut addresses = HashSet::with_capacity(instances.len());
        let mut ranked: Vec<(u64, usize)> = instances
            .iter()
            .enumerate()
            .filter(|(_, instance)| addresses.insert((instance.host.as_str(), instance.port)))
            .map(|(index, instance)| (self.rank(instance), index))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, index)| index).collect()
    }

    /// The client's subset of `instances`, in their order, with a replacement for each ID in
    /// `unreachable`. `ranking` is the [`ranking`](Self::ranking) of the same instances.
    pub(crate) fn choose(
        &self,
        instances: &[Arc<Instance>],
        ranking: &[usize],
        unreachable: &HashSet<&str>,
    ) -> Vec<Arc<Instance>> {
        let mut places = self.size;
        let mut chosen = Vec::with_capacity(self.size.min(ranking.len()));
        for index in ranking {
            if places == 0 {
                break;
            }
            places -= usize::from(!unreachable.contains(instances[*index].id.as_str()));
            chosen.push(*index);
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

    /// The subset if all instances are reachable.
    fn choose(subset: Subset, fleet: &[Arc<Instance>]) -> Vec<Arc<Instance>> {
        subset.choose(fleet, &subset.ranking(fleet), &HashSet::new())
    }

    fn ids(instances: &[Arc<Instance>]) -> HashSet<&str> {
        instances.iter().map(|i| i.id.as_str()).collect()
    }

    #[test]
    fn a_small_set_is_used_completely_and_in_order() {
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
    fn unreachable_instances_are_replaced_until_enough_are_reachable() {
        let fleet = fleet(100);
        let subset = Subset::new(10, b"a");
        let ranking = subset.ranking(&fleet);
        let usual = choose(subset, &fleet);
        let mut unreachable: HashSet<&str> = usual[..3].iter().map(|i| i.id.as_str()).collect();
        let chosen = subset.choose(&fleet, &ranking, &unreachable);
        assert_eq!(chosen.len(), 13);
        assert!(ids(&usual).is_subset(&ids(&chosen)));
        // The replacements are unreachable too, and theirs, until only the last 10 in rank are left.
        let reachable: HashSet<&str> = ranking[90..]
            .iter()
            .map(|i| fleet[*i].id.as_str())
            .collect();
        for round in 1..=9 {
            let count = unreachable.len();
            let chosen = subset.choose(&fleet, &ranking, &unreachable);
            assert_eq!(chosen.len(), 10 + count, "in round {round}");
            let is_chosen = |id: &&str| chosen.iter().any(|instance| instance.id == **id);
            unreachable = ids(&fleet).into_iter().filter(is_chosen).collect();
            unreachable.retain(|id| !reachable.contains(id));
        }
        let chosen = subset.choose(&fleet, &ranking, &unreachable);
        assert!(reachable.is_subset(&ids(&chosen)));
        unreachable = ids(&fleet);
        assert_eq!(subset.choose(&fleet, &ranking, &unreachable).len(), 100);
    }

    /// Each of 100 instances is in 20 of 100 subsets on average, with the variation of random choices.
    #[test]
    fn the_subsets_of_many_clients_are_spread_over_all_instances() {
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
        /// The removal of any instance replaces at most that instance.
        #[test]
        fn the_removal_of_an_instance_changes_a_subset_by_at_most_one(
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
