//! Entries of etcd's Go package `endpoints`: JSON with the address and free metadata.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::default_id;
use crate::instance::Instance;

const ID: &str = "id";
const TAGS: &str = "tags";
const WEIGHT: &str = "weight";
const ZONE: &str = "zone";
const DATACENTER: &str = "datacenter";

/// The only operation of an entry that exists.
const ADD: i64 = 0;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    op: i64,
    addr: String,
    metadata: BTreeMap<&'a str, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Read {
    // Go ignores the case of names.
    #[serde(alias = "op", default)]
    op: i64,
    #[serde(alias = "addr")]
    addr: String,
    #[serde(alias = "metadata", default)]
    metadata: Value,
}

/// Equal instances give equal bytes.
pub(super) fn encode(instance: &Instance) -> Result<Vec<u8>, String> {
    let mut metadata = BTreeMap::new();
    for (key, value) in &instance.meta {
        if [ID, TAGS, WEIGHT, DATACENTER].contains(&key.as_str()) {
            return Err(format!(
                "the metadata key {key:?} has a meaning of its own in the layout grpc; use another name"
            ));
        }
        metadata.insert(key.as_str(), Value::from(value.as_str()));
    }
    metadata.insert(ID, Value::from(instance.id.as_str()));
    if !instance.tags.is_empty() {
        metadata.insert(TAGS, Value::from(instance.tags.clone()));
    }
    if instance.weight != 1 {
        metadata.insert(WEIGHT, Value::from(instance.weight));
    }
    for (key, value) in [(ZONE, &instance.zone), (DATACENTER, &instance.datacenter)] {
        if let Some(value) = value {
            metadata.insert(key, Value::from(value.as_str()));
        }
    }
    let written = Written {
        op: ADD,
        addr: instance.authority(),
        metadata,
    };
    serde_json::to_vec(&written).map_err(|e| e.to_string())
}

/// Metadata of another form than ours is kept as text: it does not hide the instance.
pub(super) fn decode(service: &str, json: &str) -> Result<Instance, String> {
    let read: Read = serde_json::from_str(json).map_err(|e| e.to_string())?;
    if read.op != ADD {
        return Err(format!("Op is {}, expected {ADD}", read.op));
    }
    let instance = Instance::parse(&read.addr).map_err(|e| e.to_string())?;
    let id = default_id(service, &instance);
    let instance = instance.with_id(id).with_service(service);
    Ok(match read.metadata {
        Value::Null => instance,
        Value::Object(metadata) => describe(instance, metadata),
        other => {
            let metadata = Map::from_iter([("metadata".to_owned(), other)]);
            describe(instance, metadata)
        }
    })
}

fn describe(mut instance: Instance, metadata: Map<String, Value>) -> Instance {
    for (key, value) in metadata {
        let known = match key.as_str() {
            ID => set_text(&mut instance.id, &value),
            TAGS => set_tags(&mut instance.tags, &value),
            WEIGHT => set_weight(&mut instance.weight, &value),
            DATACENTER => set_text(instance.datacenter.get_or_insert_default(), &value),
            // As in Consul, the zone is also one of the metadata.
            ZONE => {
                set_text(instance.zone.get_or_insert_default(), &value);
                false
            }
            _ => false,
        };
        if known {
            continue;
        }
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        instance.meta.insert(key, text);
    }
    instance.zone = instance.zone.filter(|zone| !zone.is_empty());
    instance.datacenter = instance.datacenter.filter(|name| !name.is_empty());
    instance
}

/// Sets a text that is not empty. False for another value.
fn set_text(target: &mut String, value: &Value) -> bool {
    let text = value.as_str().filter(|text| !text.is_empty());
    if let Some(text) = text {
        text.clone_into(target);
    }
    text.is_some()
}

fn set_tags(target: &mut Vec<String>, value: &Value) -> bool {
    let Some(list) = value.as_array() else {
        return false;
    };
    let tags: Option<Vec<_>> = list
        .iter()
        .map(|tag| tag.as_str().map(str::to_owned))
        .collect();
    match tags {
        Some(tags) => *target = tags,
        None => return false,
    }
    true
}

/// A number, or a number in a text. Weight zero would exclude the instance.
fn set_weight(target: &mut u32, value: &Value) -> bool {
    let number = value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    match number.and_then(|number| u32::try_from(number).ok()) {
        Some(weight) => *target = weight.max(1),
        None => return false,
    }
    true
}
