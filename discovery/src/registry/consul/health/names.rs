//! The IDs of the instances of one watch.
//!
//! Consul's IDs are unique on a node only: a service that is registered without an ID has the service's
//! name as its ID, on every node. Of equal IDs, each instance is called `ID@NODE`.
//!
//! An instance keeps its name for as long as it is listed, because another name would make a channel
//! connect to it anew. So the first one on its own stays `ID` when a second appears, and the second stays
//! `ID@NODE` when the first leaves.

use std::collections::{HashMap, HashSet};

use crate::instance::Instance;

/// The names given by a watch.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The names of the instances in the last answer, by ID and node.
    given: HashMap<(String, String), String>,
    /// IDs that were seen on two nodes. They are few; they stay as long as the watch.
    ambiguous: HashSet<String>,
}

impl Names {
    /// Names the instances of an answer, each of which stands beside its node's name.
    pub(crate) fn give(&mut self, found: Vec<(Instance, String)>) -> Vec<Instance> {
        let mut nodes: HashMap<&str, &str> = HashMap::with_capacity(found.len());
        for (instance, node) in &found {
            let first = nodes.entry(&instance.id).or_insert(node);
            if *first != node && !self.ambiguous.contains(&instance.id) {
                self.ambiguous.insert(instance.id.clone());
            }
        }
        let mut given = HashMap::with_capacity(found.len());
        let name = |(mut instance, node): (Instance, String)| {
            let key = (instance.id.clone(), node);
            let name = match self.given.get(&key) {
                Some(name) => name.clone(),
                None if self.ambiguous.contains(&key.0) => format!("{}@{}", key.0, key.1),
                None => key.0.clone(),
            };
            instance.id.clone_from(&name);
            given.insert(key, name);
            instance
        };
        let named = found.into_iter().map(name).collect();
        self.given = given;
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(names: &mut Names, found: &[(&str, &str)]) -> Vec<String> {
        let found = found.iter().map(|(id, node)| {
            let instance = Instance::new("127.0.0.1", 1).unwrap().with_id(*id);
            (instance, (*node).to_owned())
        });
        let instances = names.give(found.collect());
        instances.into_iter().map(|instance| instance.id).collect()
    }

    #[test]
    fn one_id_on_two_nodes_is_two_names() {
        let mut names = Names::default();
        let both = [("a", "n1"), ("b", "n1"), ("a", "n2")];
        assert_eq!(give(&mut names, &both), ["a@n1", "b", "a@n2"]);
    }

    #[test]
    fn a_name_stays_when_the_other_instance_leaves_and_when_it_returns() {
        let mut names = Names::default();
        give(&mut names, &[("a", "n1"), ("a", "n2")]);
        assert_eq!(give(&mut names, &[("a", "n2")]), ["a@n2"]);
        let both = [("a", "n1"), ("a", "n2")];
        assert_eq!(give(&mut names, &both), ["a@n1", "a@n2"]);
        // Also after an answer without either.
        give(&mut names, &[]);
        assert_eq!(give(&mut names, &[("a", "n2")]), ["a@n2"]);
    }

    #[test]
    fn the_first_keeps_its_name_when_a_second_appears() {
        let mut names = Names::default();
        assert_eq!(give(&mut names, &[("a", "n1")]), ["a"]);
        assert_eq!(give(&mut names, &[("a", "n1"), ("a", "n2")]), ["a", "a@n2"]);
        assert_eq!(give(&mut names, &[("a", "n2")]), ["a@n2"]);
    }
}
