//! The entries of one service by key, and the listing that they make.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    instance::{Instance, InstanceHealth},
    registry::{
        Listing, Query,
        etcd::{
            layout::decode,
            proto::{DELETE, Event, KeyValue},
        },
    },
};

/// The decoded entries. Each is decoded once, when it is put.
pub(super) struct Entries {
    query: Query,
    /// The length of the part of the keys that all entries share.
    prefix: usize,
    /// An entry that cannot be used has the reason. Entries that the query excludes are left out.
    by_key: BTreeMap<Vec<u8>, Result<Instance, String>>,
}

impl Entries {
    /// The entries of a service whose keys begin with `prefix`.
    pub(super) fn new(query: Query, prefix: &str) -> Self {
        Self {
            query,
            prefix: prefix.len(),
            by_key: BTreeMap::new(),
        }
    }

    /// Replaces all entries.
    pub(super) fn replace(&mut self, kvs: Vec<KeyValue>) {
        self.by_key.clear();
        for kv in kvs {
            self.put(kv);
        }
    }

    /// Applies changes in their order.
    pub(super) fn apply(&mut self, events: Vec<Event>) {
        for event in events {
            let Some(kv) = event.kv else { continue };
            if event.kind == DELETE {
                self.by_key.remove(&kv.key);
            } else {
                self.put(kv);
            }
        }
    }

    fn put(&mut self, kv: KeyValue) {
        let entry = decode(&self.query.service, &kv.value).map(|instance| {
            // An entry without a lease stays after its process has ended.
            let health = match kv.lease {
                0 => InstanceHealth::Unknown,
                _ => InstanceHealth::Passing,
            };
            instance.with_health(health)
        });
        match entry {
            Ok(instance) if !self.query.selects(&instance) => {
                self.by_key.remove(&kv.key);
            }
            Ok(instance) => {
                self.by_key.insert(kv.key, Ok(instance));
            }
            Err(reason) => {
                let key = String::from_utf8_lossy(&kv.key);
                let rejected = Err(format!("{key:?}: {reason}"));
                self.by_key.insert(kv.key, rejected);
            }
        }
    }

    /// The whole set. Entries of different addresses under one ID get the end of their keys in it.
    pub(super) fn listing(&self) -> Listing {
        let mut addresses: HashMap<&str, (&str, u16)> = HashMap::new();
        let mut shared: HashSet<&str> = HashSet::new();
        for instance in self.by_key.values().flatten() {
            let address = (instance.host.as_str(), instance.port);
            if *addresses.entry(&instance.id).or_insert(address) != address {
                shared.insert(&instance.id);
            }
        }
        let mut listing = Listing::default();
        for (key, entry) in &self.by_key {
            match entry {
                Ok(instance) if shared.contains(instance.id.as_str()) => {
                    let end = key.get(self.prefix..).unwrap_or_default();
                    let id = format!("{}@{}", instance.id, String::from_utf8_lossy(end));
                    listing.push(instance.clone().with_id(id));
                }
                Ok(instance) => listing.push(instance.clone()),
                Err(reason) => listing.reject(reason.clone()),
            }
        }
        listing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "naming/trim_service/";

    fn kv(end: &str, value: &str) -> KeyValue {
        KeyValue {
            key: format!("{PREFIX}{end}").into_bytes(),
            value: value.as_bytes().to_vec(),
            lease: 7,
        }
    }

    fn event(kind: i32, kv: KeyValue) -> Event {
        Event { kind, kv: Some(kv) }
    }

    fn entries(query: Query) -> Entries {
        Entries::new(query, PREFIX)
    }

    fn ids(entries: &Entries) -> Vec<String> {
        let listing = entries.listing();
        listing.instances().iter().map(|i| i.id.clone()).collect()
    }

    #[test]
    fn the_events_of_a_real_watch_give_its_sets() {
        // registry-facts, etcd-watch.jsonl: two registrations of Go's endpoints package, then the end
        // of their lease.
        let mut entries = entries(Query::new("trim_service"));
        let zoned = r#"{"Op":0,"Addr":"127.0.0.1:8975","Metadata":{"zone":"a"}}"#;
        let plain = r#"{"Op":0,"Addr":"127.0.0.1:8976","Metadata":null}"#;
        entries.apply(vec![event(0, kv("127.0.0.1:8975", zoned))]);
        entries.apply(vec![event(0, kv("127.0.0.1:8976", plain))]);
        let listing = entries.listing();
        assert_eq!(listing.instances()[0].zone.as_deref(), Some("a"));
        assert_eq!(listing.instances()[0].health, InstanceHealth::Passing);
        assert_eq!(
            ids(&entries),
            ["trim_service-127.0.0.1-8975", "trim_service-127.0.0.1-8976"]
        );
        entries.apply(vec![
            event(DELETE, kv("127.0.0.1:8975", "")),
            event(DELETE, kv("127.0.0.1:8976", "")),
        ]);
        assert_eq!(ids(&entries), [""; 0]);
    }

    #[test]
    fn an_entry_that_cannot_be_used_hides_no_other_and_is_named() {
        let mut entries = entries(Query::new("trim_service"));
        entries.replace(vec![
            kv("a", "127.0.0.1:1"),
            kv("b", "nonsense"),
            kv("c", "{\"Addr\":\"x:0\"}"),
        ]);
        let listing = entries.listing();
        assert_eq!(listing.instances().len(), 1);
        assert_eq!(listing.rejected().len(), 2);
        assert!(
            listing.rejected()[0].contains("trim_service/b"),
            "{:?}",
            listing.rejected()
        );
        // It counts as soon as it can be used.
        entries.apply(vec![event(0, kv("b", "127.0.0.1:2"))]);
        assert_eq!(entries.listing().instances().len(), 2);
    }

    #[test]
    fn a_query_is_answered_by_tags_and_datacenter() {
        let value = |tags: &str, datacenter: &str| {
            format!(
                r#"{{"Op":0,"Addr":"127.0.0.1:1","Metadata":{{"tags":{tags},"datacenter":"{datacenter}"}}}}"#
            )
        };
        let query = Query::new("trim_service")
            .with_tags(["a", "b"])
            .with_datacenter("dc1");
        let mut entries = entries(query);
        entries.replace(vec![
            // In any case, as in every registry.
            kv("1", &value(r#"["B","c","a"]"#, "dc1")),
            kv("2", &value(r#"["a"]"#, "dc1")),
            kv("3", &value(r#"["a","b"]"#, "dc2")),
        ]);
        assert_eq!(entries.listing().instances().len(), 1);
        // An entry that loses a tag leaves the set.
        entries.apply(vec![event(0, kv("1", &value(r#"["b"]"#, "dc1")))]);
        assert_eq!(entries.listing().instances().len(), 0);
    }

    #[test]
    fn an_id_at_two_addresses_does_not_hide_one_of_them() {
        let mut entries = entries(Query::new("trim_service"));
        let value =
            |port: u16| format!(r#"{{"Op":0,"Addr":"127.0.0.1:{port}","Metadata":{{"id":"x"}}}}"#);
        entries.replace(vec![
            kv("1", &value(1)),
            kv("2", &value(2)),
            kv("3", "127.0.0.1:3"),
        ]);
        assert_eq!(ids(&entries), ["x@1", "x@2", "trim_service-127.0.0.1-3"]);
        // Two keys of one address are one instance.
        entries.replace(vec![kv("1", &value(1)), kv("2", &value(1))]);
        assert_eq!(ids(&entries), ["x", "x"]);
    }
}
