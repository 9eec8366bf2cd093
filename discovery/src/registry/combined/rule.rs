//! How the sets of several registries become one. Pure functions.

use std::sync::Arc;

use super::addresses::Addresses;
use crate::registry::InstanceSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The instances of all registries.
    Union,
    /// The instances of the first registry that lists any.
    OrElse,
}

impl Rule {
    /// The combined set of these registries' sets, in the order of preference.
    ///
    /// An instance in several sets has the data of the first that shows it as usable, else of the first.
    /// An empty set is confirmed only when every registry has answered: the instances may be in the
    /// missing answer.
    pub(super) fn combine(self, sets: &[InstanceSet], addresses: &mut Addresses) -> InstanceSet {
        let chosen: Vec<&InstanceSet> = match self {
            Self::Union => sets.iter().collect(),
            Self::OrElse => {
                let lists_any = |set: &&InstanceSet| !set.instances.is_empty();
                sets.iter().find(lists_any).into_iter().collect()
            }
        };
        let all = || chosen.iter().flat_map(|set| set.instances.iter());
        let usable = all().filter(|instance| instance.health.is_usable());
        let rest = all().filter(|instance| !instance.health.is_usable());
        let mut instances = addresses.assign(usable.chain(rest));
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        let confirmed = if instances.is_empty() {
            let all: Option<Vec<_>> = sets.iter().map(|set| set.confirmed).collect();
            all.and_then(|all| all.into_iter().min())
        } else {
            // The age of what is listed.
            chosen.iter().filter_map(|set| set.confirmed).min()
        };
        InstanceSet {
            instances: instances.into(),
            confirmed,
            error: sets.iter().find_map(|set| set.error.clone()),
        }
    }
}

/// Replaces each instance that equals the old one by the old allocation, and the whole list if nothing
/// differs, so that readers can compare by pointer. Returns true if readers must be notified.
pub(super) fn publish(current: &mut InstanceSet, mut new: InstanceSet) -> bool {
    let same_instances = current.instances == new.instances;
    if same_instances {
        new.instances = Arc::clone(&current.instances);
    }
    let same_error = match (&current.error, &new.error) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    };
    let changed =
        !same_instances || !same_error || current.confirmed.is_some() != new.confirmed.is_some();
    *current = new;
    changed
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::{
        instance::{Instance, InstanceHealth},
        registry::RegistryError,
    };

    fn set(list: &[(&str, u16)]) -> InstanceSet {
        InstanceSet::confirmed(
            list.iter()
                .map(|(id, port)| Instance::new("10.0.0.1", *port).unwrap().with_id(*id)),
        )
    }

    fn failing(set: InstanceSet) -> InstanceSet {
        set.with_error(RegistryError::NoRuntime {
            action: "watch".to_owned(),
        })
    }

    fn ids(set: &InstanceSet) -> Vec<&str> {
        set.instances.iter().map(|i| i.id.as_str()).collect()
    }

    fn combine(rule: Rule, sets: &[InstanceSet]) -> InstanceSet {
        rule.combine(sets, &mut Addresses::default())
    }

    #[test]
    fn a_union_lists_each_address_once() {
        let sets = [set(&[("a", 1), ("b", 2)]), set(&[("x", 2), ("y", 3)])];
        assert_eq!(ids(&combine(Rule::Union, &sets)), ["a", "b", "y"]);
    }

    #[test]
    fn a_registry_without_an_answer_hides_no_instances_of_another() {
        for rule in [Rule::Union, Rule::OrElse] {
            for missing in [InstanceSet::default(), failing(InstanceSet::default())] {
                let sets = [missing.clone(), set(&[("a", 1)])];
                let combined = combine(rule, &sets);
                assert_eq!(ids(&combined), ["a"]);
                assert!(combined.confirmed.is_some());
                assert_eq!(combined.error.is_some(), missing.error.is_some());
                // An empty answer beside a missing one does not prove that there are none.
                let unknown = combine(rule, &[missing, set(&[])]);
                assert!(unknown.confirmed.is_none());
            }
            assert!(combine(rule, &[set(&[]), set(&[])]).confirmed.is_some());
        }
    }

    #[test]
    fn the_second_is_used_only_while_the_first_lists_nothing() {
        let second = set(&[("b", 2)]);
        let combined = |first: InstanceSet| combine(Rule::OrElse, &[first, second.clone()]);
        assert_eq!(ids(&combined(set(&[("a", 1)]))), ["a"]);
        assert_eq!(ids(&combined(failing(set(&[("a", 1)])))), ["a"]);
        assert_eq!(ids(&combined(set(&[]))), ["b"]);
        assert_eq!(ids(&combined(InstanceSet::default())), ["b"]);
    }

    #[test]
    fn an_instance_that_one_registry_shows_as_usable_is_usable() {
        let mut critical = Instance::new("10.0.0.1", 1).unwrap();
        critical.health = InstanceHealth::Critical;
        let sets = [InstanceSet::confirmed([critical]), set(&[("a", 1)])];
        let combined = combine(Rule::Union, &sets);
        assert!(combined.instances[0].health.is_usable());
    }

    #[test]
    fn readers_are_notified_of_differences_only() {
        let mut current = InstanceSet::default();
        assert!(publish(&mut current, set(&[("a", 1)])));
        let list = Arc::clone(&current.instances);
        let mut later = set(&[("a", 1)]);
        later.confirmed = Some(Instant::now().into_std());
        assert!(!publish(&mut current, later));
        assert!(Arc::ptr_eq(&list, &current.instances));
        assert!(publish(&mut current, failing(set(&[("a", 1)]))));
        assert!(publish(&mut current, set(&[])));
    }
}
