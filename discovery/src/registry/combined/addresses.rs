//! One ID for each address, for as long as the address is listed.

use std::{collections::HashMap, collections::HashSet, sync::Arc};

use crate::instance::Instance;

/// The IDs in use, by host and port.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    ids: HashMap<(String, u16), String>,
}

impl Addresses {
    /// The instances, one for each address, under the IDs that their addresses have had so far. Of two
    /// instances at one address the first is kept. Addresses that are not listed lose their ID.
    pub(super) fn assign<'a>(
        &mut self,
        listed: impl IntoIterator<Item = &'a Arc<Instance>>,
    ) -> Vec<Arc<Instance>> {
        let mut seen = HashSet::new();
        let first_of_address: Vec<_> = listed
            .into_iter()
            .filter(|instance| seen.insert((instance.host.as_str(), instance.port)))
            .collect();
        self.ids
            .retain(|(host, port), _| seen.contains(&(host.as_str(), *port)));
        let mut used: HashSet<String> = self.ids.values().cloned().collect();
        first_of_address
            .into_iter()
            .map(|instance| {
                let address = (instance.host.clone(), instance.port);
                let id = self.ids.entry(address).or_insert_with(|| {
                    // Two registries may use one ID for two processes.
                    let id = if used.contains(&instance.id) {
                        format!("{}@{}", instance.id, instance.authority())
                    } else {
                        instance.id.clone()
                    };
                    used.insert(id.clone());
                    id
                });
                if instance.id == *id {
                    Arc::clone(instance)
                } else {
                    Arc::new(Instance::clone(instance).with_id(id.as_str()))
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(list: &[(&str, u16)]) -> Vec<Arc<Instance>> {
        let instance = |(id, port): &(&str, u16)| {
            let instance = Instance::new("10.0.0.1", *port).unwrap();
            Arc::new(instance.with_id(*id))
        };
        list.iter().map(instance).collect()
    }

    fn assigned(addresses: &mut Addresses, list: &[(&str, u16)]) -> Vec<(String, u16)> {
        let assigned = addresses.assign(&instances(list));
        assigned.iter().map(|i| (i.id.clone(), i.port)).collect()
    }

    #[test]
    fn an_address_keeps_its_id_while_it_is_listed() {
        let mut addresses = Addresses::default();
        let a = |id: &str| vec![(id.to_owned(), 1)];
        assert_eq!(assigned(&mut addresses, &[("consul", 1)]), a("consul"));
        let both = [("consul", 1), ("etcd", 1)];
        assert_eq!(assigned(&mut addresses, &both), a("consul"));
        assert_eq!(assigned(&mut addresses, &[("etcd", 1)]), a("consul"));
        assert!(assigned(&mut addresses, &[]).is_empty());
        assert_eq!(assigned(&mut addresses, &[("etcd", 1)]), a("etcd"));
    }

    #[test]
    fn one_id_at_two_addresses_is_two_ids() {
        let mut addresses = Addresses::default();
        let expected = [("a".to_owned(), 1), ("a@10.0.0.1:2".to_owned(), 2)];
        assert_eq!(assigned(&mut addresses, &[("a", 1), ("a", 2)]), expected);
        // The order of the registries' answers does not change them.
        let mut reversed = assigned(&mut addresses, &[("a", 2), ("a", 1)]);
        reversed.reverse();
        assert_eq!(reversed, expected);
    }
}
