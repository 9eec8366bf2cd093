//! A hand-written list of instances that no process owns, in the format of Prometheus's `file_sd`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{instance::Instance, registry::Listing};

/// The end of such a file's name.
pub(super) const SUFFIX: &str = ".static.json";

#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Adds the instances in this JSON to `listing`. An error concerns the whole file.
pub(super) fn read(json: &[u8], service: &str, listing: &mut Listing) -> Result<(), String> {
    let groups: Vec<Group> = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    for group in groups {
        for target in &group.targets {
            match instance(target, &group.labels) {
                Ok(instance) => listing.push(instance.with_service(service)),
                Err(reason) => listing.reject(reason),
            }
        }
    }
    Ok(())
}

fn instance(target: &str, labels: &BTreeMap<String, String>) -> Result<Instance, String> {
    let mut instance = Instance::parse(target).map_err(|e| e.to_string())?;
    if let Some(weight) = labels.get("weight") {
        let number = weight.parse().ok().filter(|&weight| weight > 0);
        instance.weight = number.ok_or_else(|| {
            format!("{target}: the label weight is {weight:?}; expected a number from 1")
        })?;
    }
    let tags = labels.get("tags").map(String::as_str).unwrap_or_default();
    let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    instance.tags = tags.map(str::to_owned).collect();
    instance.zone = labels.get("zone").filter(|zone| !zone.is_empty()).cloned();
    instance.meta.clone_from(labels);
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_labels_are_read_as_file_sd_writes_them() {
        let json = br#"[{"targets": ["a:1", "b:2"], "labels": {"zone": "z", "weight": "3", "tags": "x, y"}},
                        {"targets": ["c:3"]}, {"targets": []}]"#;
        let mut listing = Listing::default();
        read(json, "trim", &mut listing).unwrap();
        let [a, b, c] = listing.instances() else {
            panic!("{listing:?}")
        };
        assert_eq!((a.id.as_str(), b.id.as_str(), c.weight), ("a:1", "b:2", 1));
        assert_eq!((a.weight, a.zone.as_deref()), (3, Some("z")));
        assert_eq!(
            (&a.tags[..], &*a.meta["tags"]),
            (&["x".into(), "y".into()][..], "x, y")
        );
        assert_eq!(c.service, "trim");
    }

    #[test]
    fn a_bad_target_hides_no_other() {
        let json =
            br#"[{"targets": ["a:0", "b:2"]}, {"targets": ["c:1"], "labels": {"weight": "-1"}}]"#;
        let mut listing = Listing::default();
        read(json, "trim", &mut listing).unwrap();
        assert_eq!(listing.instances().len(), 1);
        let [port, weight] = listing.rejected() else {
            panic!("{listing:?}")
        };
        assert!(
            port.contains("a:0") && weight.contains("\"-1\""),
            "{port} {weight}"
        );
        let error = read(b"{}", "trim", &mut Listing::default()).unwrap_err();
        assert!(error.contains("expected a sequence"), "{error}");
    }
}
