//! The difference between two sets of instances.

use std::{collections::BTreeMap, sync::Arc};

use discovery::{Instance, chain, registry::InstanceSet};
use serde_json::{Value, json};

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The registry answers, for the first time or again.
    Answered {
        instances: usize,
    },
    /// The registry does not answer, or answers with an error.
    Lost {
        reason: String,
    },
    Added(Arc<Instance>),
    Changed {
        before: Arc<Instance>,
        after: Arc<Instance>,
    },
    Removed(Arc<Instance>),
}

impl Change {
    /// The change as a JSON object.
    pub(crate) fn json(&self, time: &str) -> Value {
        match self {
            Self::Answered { instances } => {
                json!({"time": time, "event": "registry_answered", "instances": instances})
            }
            Self::Lost { reason } => {
                json!({"time": time, "event": "registry_lost", "reason": reason})
            }
            Self::Added(instance) => json!({"time": time, "event": "added", "instance": instance}),
            Self::Changed { before, after } => {
                json!({"time": time, "event": "changed", "instance": after, "before": before})
            }
            Self::Removed(instance) => {
                json!({"time": time, "event": "removed", "instance": instance})
            }
        }
    }
}

/// What was reported so far.
#[derive(Debug)]
pub(crate) struct Known {
    passing: bool,
    instances: BTreeMap<String, Arc<Instance>>,
    /// The registry's state: `None` before its first answer.
    state: Option<Result<(), String>>,
}

impl Known {
    /// Nothing yet. With `passing`, an instance whose checks fail counts as removed.
    pub(crate) fn new(passing: bool) -> Self {
        Self {
            passing,
            instances: BTreeMap::new(),
            state: None,
        }
    }

    /// The changes up to this set, those of the registry first.
    pub(crate) fn update(&mut self, set: &InstanceSet) -> Vec<Change> {
        let wanted = |instance: &&Arc<Instance>| !self.passing || instance.health.is_usable();
        let listed = set.instances.iter().filter(wanted);
        let listed: BTreeMap<_, _> = listed
            .map(|instance| (instance.id.clone(), Arc::clone(instance)))
            .collect();
        let state = match (&set.error, set.confirmed) {
            (Some(error), _) => Some(Err(chain(&**error))),
            (None, Some(_)) => Some(Ok(())),
            (None, None) => None,
        };
        let mut changes = Vec::new();
        if state != self.state {
            match &state {
                Some(Ok(())) => changes.push(Change::Answered {
                    instances: listed.len(),
                }),
                Some(Err(reason)) => changes.push(Change::Lost {
                    reason: reason.clone(),
                }),
                None => {}
            }
            self.state = state;
        }
        for (id, before) in &self.instances {
            if !listed.contains_key(id) {
                changes.push(Change::Removed(Arc::clone(before)));
            }
        }
        for (id, after) in &listed {
            match self.instances.get(id) {
                None => changes.push(Change::Added(Arc::clone(after))),
                Some(before) if before != after => changes.push(Change::Changed {
                    before: Arc::clone(before),
                    after: Arc::clone(after),
                }),
                Some(_) => {}
            }
        }
        self.instances = listed;
        changes
    }
}

#[cfg(test)]
mod tests {
    use discovery::{InstanceHealth, registry::RegistryError};

    use super::*;

    fn instance(id: &str, health: InstanceHealth) -> Instance {
        let instance = Instance::new("10.0.0.1", 1).unwrap();
        instance.with_id(id).with_health(health)
    }

    fn events(known: &mut Known, set: &InstanceSet) -> Vec<String> {
        let word = |change: Change| {
            let json = change.json("now");
            let id = json["instance"]["id"].as_str().unwrap_or_default();
            format!("{} {id}", json["event"].as_str().unwrap())
        };
        known.update(set).into_iter().map(word).collect()
    }

    #[test]
    fn each_change_is_reported_once() {
        let mut known = Known::new(false);
        assert!(events(&mut known, &InstanceSet::default()).is_empty());
        let good = |id| instance(id, InstanceHealth::Passing);
        let both = InstanceSet::confirmed([good("a"), good("b")]);
        assert_eq!(
            events(&mut known, &both),
            ["registry_answered ", "added a", "added b"]
        );
        assert!(events(&mut known, &both).is_empty());
        let next = InstanceSet::confirmed([good("c"), instance("b", InstanceHealth::Critical)]);
        assert_eq!(
            events(&mut known, &next),
            ["removed a", "changed b", "added c"]
        );
    }

    #[test]
    fn a_failure_and_its_end_are_reported_without_the_instances() {
        let mut known = Known::new(false);
        let good = InstanceSet::confirmed([instance("a", InstanceHealth::Passing)]);
        known.update(&good);
        let lost = good.clone().with_error(RegistryError::Unsupported {
            registry: "r".into(),
            action: "x".into(),
        });
        assert_eq!(events(&mut known, &lost), ["registry_lost "]);
        assert!(events(&mut known, &lost).is_empty());
        assert_eq!(events(&mut known, &good), ["registry_answered "]);
    }

    #[test]
    fn with_the_filter_a_failing_instance_is_a_removed_one() {
        let mut known = Known::new(true);
        let set = |health| InstanceSet::confirmed([instance("a", health)]);
        known.update(&set(InstanceHealth::Passing));
        let failing = set(InstanceHealth::Critical);
        assert_eq!(events(&mut known, &failing), ["removed a"]);
        assert_eq!(
            events(&mut known, &set(InstanceHealth::Unknown)),
            ["added a"]
        );
    }
}
