//! The JSON that describes one instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::instance::Instance;

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    host: String,
    port: u16,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datacenter: Option<String>,
}

fn one() -> u32 {
    1
}

impl Entry {
    pub(super) fn of(instance: &Instance) -> Self {
        Self {
            id: Some(instance.id.clone()),
            host: instance.host.clone(),
            port: instance.port,
            tags: instance.tags.clone(),
            meta: instance.meta.clone(),
            weight: instance.weight,
            zone: instance.zone.clone(),
            datacenter: instance.datacenter.clone(),
        }
    }

    /// The instance of `service` in this JSON, or the reason why it cannot be used.
    pub(super) fn read(json: &[u8], service: &str) -> Result<Instance, String> {
        let entry: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        let instance = Instance::new(entry.host, entry.port).map_err(|e| e.to_string())?;
        let id = entry.id.filter(|id| !id.is_empty());
        Ok(Instance {
            id: id.unwrap_or_else(|| instance.id.clone()),
            service: service.to_owned(),
            tags: entry.tags,
            meta: entry.meta,
            // Weight zero would exclude an instance that is registered.
            weight: entry.weight.max(1),
            zone: entry.zone.filter(|zone| !zone.is_empty()),
            datacenter: entry.datacenter.filter(|name| !name.is_empty()),
            ..instance
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_survives_the_way_through_json() {
        let instance = Instance::named("trim", [127, 0, 0, 1].into(), 8975)
            .unwrap()
            .with_tags(["blue", "a b"])
            .with_meta([("version", "2"), ("", "\u{1f980}")])
            .with_weight(7)
            .with_zone("a")
            .with_datacenter("dc1");
        let json = serde_json::to_vec(&Entry::of(&instance)).unwrap();
        assert_eq!(Entry::read(&json, "trim").unwrap(), instance);
    }

    #[test]
    fn host_and_port_suffice() {
        let json = br#"{"host": "::1", "port": 1, "pid": 7}"#;
        let instance = Entry::read(json, "trim").unwrap();
        assert_eq!((instance.id.as_str(), instance.weight), ("[::1]:1", 1));
    }

    #[test]
    fn an_unusable_entry_says_why() {
        for (json, reason) in [
            ("", "EOF"),
            ("[]", "expected struct"),
            (r#"{"host": "a"}"#, "port"),
            (r#"{"host": "a", "port": 70000}"#, "70000"),
            (r#"{"host": "a", "port": 0}"#, "port 0"),
            (r#"{"host": "0.0.0.0", "port": 1}"#, "0.0.0.0"),
            (r#"{"host": "a", "port": 1} x"#, "trailing"),
        ] {
            let error = Entry::read(json.as_bytes(), "trim").unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
