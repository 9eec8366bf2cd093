//! An instance as text.

use discovery::{Instance, InstanceHealth};

/// The health in the registry, in one word.
pub(crate) fn health(health: InstanceHealth) -> &'static str {
    match health {
        InstanceHealth::Passing => "passing",
        InstanceHealth::Warning => "warning",
        InstanceHealth::Critical => "critical",
        InstanceHealth::Lost => "lost",
        _ => "unknown",
    }
}

/// A number of instances in words.
pub(crate) fn count(number: usize) -> String {
    match number {
        1 => "1 instance".to_owned(),
        number => format!("{number} instances"),
    }
}

/// All that is known of an instance, as `name=value` after its ID and address.
pub(crate) fn whole(instance: &Instance) -> String {
    let known = fields(instance).into_iter();
    let known = known.filter(|(_, value)| !value.is_empty());
    let mut parts = vec![instance.id.clone(), instance.authority()];
    parts.extend(known.map(|(name, value)| format!("{name}={value}")));
    parts.join("  ")
}

/// The fields that differ, as `name: old -> new`.
pub(crate) fn difference(before: &Instance, after: &Instance) -> String {
    let address = ("address", before.authority(), after.authority());
    let pairs = fields(before).into_iter().zip(fields(after));
    let fields = pairs.map(|((name, old), (_, new))| (name, old, new));
    let changed = std::iter::once(address).chain(fields);
    let changed = changed.filter(|(_, old, new)| old != new);
    let changed: Vec<_> = changed
        .map(|(name, old, new)| format!("{name}: {} -> {}", shown(&old), shown(&new)))
        .collect();
    changed.join("  ")
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}

fn fields(instance: &Instance) -> [(&'static str, String); 6] {
    let meta = instance.meta.iter();
    let meta: Vec<_> = meta.map(|(key, value)| format!("{key}={value}")).collect();
    let weight = match instance.weight {
        1 => String::new(),
        weight => weight.to_string(),
    };
    [
        ("health", health(instance.health).to_owned()),
        ("tags", instance.tags.join(",")),
        ("weight", weight),
        ("zone", instance.zone.clone().unwrap_or_default()),
        (
            "datacenter",
            instance.datacenter.clone().unwrap_or_default(),
        ),
        ("meta", meta.join(",")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_the_fields_with_both_values() {
        let before = Instance::new("10.0.0.1", 1)
            .unwrap()
            .with_id("a")
            .with_tags(["x"]);
        let after = Instance::new("10.0.0.1", 2)
            .unwrap()
            .with_id("a")
            .with_weight(3);
        assert_eq!(
            difference(&before, &after),
            "address: 10.0.0.1:1 -> 10.0.0.1:2  tags: x -> none  weight: none -> 3"
        );
        assert_eq!(difference(&before, &before), "");
        assert_eq!(whole(&before), "a  10.0.0.1:1  health=unknown  tags=x");
    }
}
