//! A static list of instances, for tests and for users without a registry.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{
    InstanceSet, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
};
use crate::{instance::Instance, watch};

/// A registry of a given list of instances. [`set`](Self::set) replaces the list.
///
/// Clones are handles to the same list. The list is that of one service: the query's name does not matter.
/// Its tags and datacenter select from the list, and are refused if the list was read by
/// [`parse`](Self::parse), because addresses have neither. The list is
/// [authoritative](Instancer::authoritative): a removal takes effect at once.
///
/// ```
/// use discovery::{Instance, registry::StaticRegistry};
///
/// # fn main() -> Result<(), discovery::InvalidInstance> {
/// let registry = StaticRegistry::new([Instance::new("10.0.0.1", 8975)?]);
/// registry.set([Instance::new("10.0.0.1", 8975)?, Instance::new("10.0.0.2", 8975)?]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StaticRegistry {
    list: Arc<List>,
    /// The instances have no tags and no datacenter.
    addresses_only: bool,
}

#[derive(Debug)]
struct List {
    instances: watch::Sender<InstanceSet>,
    /// The parts of the list that queries select. Locked while the list changes.
    selections: Mutex<Vec<(Query, Weak<Selection>)>>,
}

/// A part of a list.
#[derive(Debug)]
struct Selection {
    instances: watch::Sender<InstanceSet>,
    /// Keeps the list alive: the registry itself may be dropped.
    _list: Arc<List>,
}

impl StaticRegistry {
    /// A registry of these instances.
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        Self {
            list: Arc::new(List {
                instances: watch::Sender::new(InstanceSet::confirmed(instances)),
                selections: Mutex::default(),
            }),
            addresses_only: false,
        }
    }

    /// Reads `HOST:PORT,HOST:PORT,...`.
    ///
    /// # Errors
    ///
    /// When the list is empty or an address is malformed.
    pub fn parse(list: &str) -> Result<Self, RegistryError> {
        let instances = list
            .split(',')
            .map(|address| Instance::parse(address.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            addresses_only: true,
            ..Self::new(instances)
        })
    }

    /// Replaces the whole list. Channels that use the registry follow.
    pub fn set(&self, instances: impl IntoIterator<Item = Instance>) {
        let set = InstanceSet::confirmed(instances);
        let selections = self.list.selections.lock();
        for (query, selection) in selections.unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(selection) = selection.upgrade() {
                selection.instances.send_replace(select(query, &set));
            }
        }
        self.list.instances.send_replace(set);
    }

    fn selection(&self, query: &Query) -> Arc<Selection> {
        let selections = self.list.selections.lock();
        let mut selections = selections.unwrap_or_else(PoisonError::into_inner);
        selections.retain(|(_, selection)| selection.strong_count() > 0);
        let selected = select(query, &self.list.instances.borrow());
        let selection = Arc::new(Selection {
            instances: watch::Sender::new(selected),
            _list: Arc::clone(&self.list),
        });
        selections.push((query.clone(), Arc::downgrade(&selection)));
        selection
    }

    fn check(&self, query: &Query) -> Result<(), String> {
        let what = match (query.tags.as_slice(), &query.datacenter) {
            ([], None) => return Ok(()),
            _ if !self.addresses_only => return query.check_datacenter(),
            ([], Some(datacenter)) => format!("no datacenter; leave out {datacenter:?}"),
            (tags, _) => format!("no tags; leave out {}", tags.join(", ")),
        };
        Err(format!(
            "a list of addresses has {what}, or name a registry that has them, such as embedded://, \
             which reads *.static.json files"
        ))
    }
}

/// The part of a set that a query selects.
fn select(query: &Query, set: &InstanceSet) -> InstanceSet {
    let selected = set.instances.iter().filter(|i| query.selects(i));
    InstanceSet {
        instances: selected.cloned().collect(),
        ..set.clone()
    }
}

impl Registry for StaticRegistry {
    fn name(&self) -> &'static str {
        "the static list"
    }

    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for tags or a datacenter where the list has addresses only, and
    /// for several datacenters.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        self.check(query)
            .map_err(|reason| RegistryError::invalid_setting(self.name(), reason))?;
        Ok(if query.tags.is_empty() && query.datacenter.is_none() {
            Arc::new(self.clone())
        } else {
            self.selection(query)
        })
    }

    /// A static list has no registrations.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unsupported`].
    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(RegistryError::Unsupported {
            registry: self.name().to_owned(),
            action: format!(
                "register {}: it only lists instances; register in another registry, for example \
                 consul://, or do without a registration",
                registration.instance.id
            ),
        })
    }
}

impl Instancer for StaticRegistry {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.list.instances.subscribe()
    }

    fn authoritative(&self) -> bool {
        true
    }
}

impl Instancer for Selection {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.instances.subscribe()
    }

    fn authoritative(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn publishes_what_it_holds_sorted_and_once() {
        let fixed = StaticRegistry::parse("127.0.0.1:2, 127.0.0.1:1,127.0.0.1:2").unwrap();
        let mut watch = fixed.instancer(&Query::new("any")).unwrap().watch();
        let ids = |set: &InstanceSet| {
            set.instances
                .iter()
                .map(|i| i.id.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ids(&watch.borrow_and_update()),
            ["127.0.0.1:1", "127.0.0.1:2"]
        );
        fixed.set([]);
        watch.changed().await.unwrap();
        assert!(watch.borrow().instances.is_empty());
        assert!(watch.borrow().confirmed.is_some());
    }

    #[test]
    fn a_query_selects_from_the_list_and_follows_it() {
        let tagged = |port, tags: &[&str], datacenter: &str| {
            let instance = Instance::new("10.0.0.1", port).unwrap();
            instance
                .with_tags(tags.iter().copied())
                .with_datacenter(datacenter)
        };
        let list = || [tagged(1, &["Blue", "v2"], "a"), tagged(2, &["v2"], "b")];
        let registry = StaticRegistry::new(list());
        let ports = |watch: &watch::Receiver<InstanceSet>| {
            let set = watch.borrow();
            assert!(set.confirmed.is_some());
            set.instances.iter().map(|i| i.port).collect::<Vec<_>>()
        };
        let query = Query::new("any");
        let watch = |query: Query| {
            let instancer = registry.instancer(&query).unwrap();
            assert!(instancer.authoritative());
            (instancer.watch(), instancer)
        };
        let (all, _a) = watch(query.clone().with_passing_only(false));
        let (blue, _b) = watch(query.clone().with_tags(["blue", "V2"]));
        let (of_b, _c) = watch(query.clone().with_datacenter("b"));
        assert_eq!(
            (ports(&all), ports(&blue), ports(&of_b)),
            (vec![1, 2], vec![1], vec![2])
        );
        registry.set([tagged(3, &["v2", "BLUE"], "b"), tagged(4, &[], "c")]);
        assert_eq!(
            (ports(&all), ports(&blue), ports(&of_b)),
            (vec![3, 4], vec![3], vec![3])
        );
        let several = registry
            .instancer(&query.with_datacenter("a,b"))
            .map(|_| ());
        assert!(several.unwrap_err().to_string().contains("a,b"));
    }

    #[test]
    fn a_list_of_addresses_refuses_what_it_does_not_have() {
        let registry = StaticRegistry::parse("127.0.0.1:1").unwrap();
        let query = Query::new("any");
        for (query, reason) in [
            (query.clone().with_tags(["blue"]), "no tags; leave out blue"),
            (
                query.with_datacenter("dc1"),
                "no datacenter; leave out \"dc1\"",
            ),
        ] {
            let error = registry.instancer(&query).map(|_| ()).unwrap_err();
            assert!(matches!(error, RegistryError::InvalidSetting { .. }));
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn an_empty_or_malformed_list_is_an_error() {
        for list in ["", ",", "a", "a:1,"] {
            assert!(StaticRegistry::parse(list).is_err(), "{list:?} was taken");
        }
    }
}
