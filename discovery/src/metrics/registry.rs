//! The metrics of one registry's watch of one service.

use metrics::{counter, describe_counter};

use super::total::Total;

const UPDATES: &str = "discovery_registry_updates_total";
const ERRORS: &str = "discovery_registry_errors_total";
const INVALID: &str = "discovery_invalid_instances_total";

/// Counted by all watches of the service in the registry. Published with every event, since they are
/// rare, and with the service's other metrics.
pub(crate) struct RegistryMetrics {
    registry: String,
    service: String,
    updates: Total,
    errors: Total,
    invalid: Total,
}

impl RegistryMetrics {
    pub(super) fn new(registry: &str, service: &str) -> Self {
        let metrics = Self {
            registry: registry.to_owned(),
            service: service.to_owned(),
            updates: Total::default(),
            errors: Total::default(),
            invalid: Total::default(),
        };
        metrics.publish();
        metrics
    }

    /// Counts a change of the instance set.
    pub(crate) fn updated(&self) {
        self.updates.increment(1);
        self.publish();
    }

    /// Counts a request without a usable answer.
    pub(crate) fn failed(&self) {
        self.errors.increment(1);
        self.publish();
    }

    /// Counts registered instances that cannot be used.
    pub(crate) fn rejected(&self, instances: u64) {
        self.invalid.increment(instances);
        self.publish();
    }

    pub(super) fn publish(&self) {
        describe_counter!(
            UPDATES,
            "Changes of an instance set, or of whether it is known."
        );
        describe_counter!(
            ERRORS,
            "Requests of a watch that failed or had no usable answer."
        );
        describe_counter!(
            INVALID,
            "Registered instances left out because they cannot be used."
        );
        for (name, total) in [
            (UPDATES, &self.updates),
            (ERRORS, &self.errors),
            (INVALID, &self.invalid),
        ] {
            let (registry, service) = (self.registry.clone(), self.service.clone());
            counter!(name, "registry" => registry, "service" => service).absolute(total.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_metric_of_a_registry() {
        let table = include_str!("../metrics.rs");
        for name in [UPDATES, ERRORS, INVALID] {
            assert!(table.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
