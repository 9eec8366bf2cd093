//! The JSON of Curator's service discovery, with Spring Cloud's payload.
//!
//! Curator's `ServiceInstance` has an address and a port. What else an instance has stands in the
//! metadata of Spring's payload, under the keys `tags` (separated by commas), `weight` and `zone`.
//! `instance_status` is Spring's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::instance::{Instance, InstanceHealth};

/// The keys in the metadata.
const TAGS: &str = "tags";
const WEIGHT: &str = "weight";
const ZONE: &str = "zone";
const STATUS: &str = "instance_status";

/// Spring's statuses of an instance that may be called.
const UP: &str = "UP";

/// The key of the payload's Java class. Spring reads a payload of its own class only. A reader that does
/// not have the class takes the payload as a map.
const CLASS: &str = "@class";
const SPRING: &str = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance";

/// A node's data. Unknown members are skipped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    port: Option<i64>,
    #[serde(default)]
    ssl_port: Option<i64>,
    #[serde(default)]
    payload: Option<Value>,
    /// False for an instance that its owner has disabled.
    #[serde(default)]
    enabled: Option<bool>,
}

/// The data of an instance.
pub(super) fn encode(instance: &Instance, registered: u64) -> Result<Vec<u8>, String> {
    let data = json!({
        "name": instance.service,
        "id": instance.id,
        "address": instance.host,
        "port": instance.port,
        "sslPort": null,
        "payload": {
            CLASS: SPRING,
            "id": instance.id,
            "name": instance.service,
            "metadata": metadata(instance)?,
        },
        "registrationTimeUTC": registered,
        "serviceType": "DYNAMIC",
        "uriSpec": UriSpec::ADDRESS,
    });
    serde_json::to_vec(&data).map_err(|error| error.to_string())
}

fn metadata(instance: &Instance) -> Result<BTreeMap<&str, String>, String> {
    let own = instance.meta.iter();
    let mut metadata: BTreeMap<_, _> = own.map(|(key, value)| (&**key, value.clone())).collect();
    if let Some(tag) = instance.tags.iter().find(|tag| tag.contains(',')) {
        return Err(format!("the tag {tag:?} contains a comma"));
    }
    if !instance.tags.is_empty() {
        metadata.insert(TAGS, instance.tags.join(","));
    }
    if instance.weight != 1 {
        metadata.insert(WEIGHT, instance.weight.to_string());
    }
    if let Some(zone) = &instance.zone {
        metadata.insert(ZONE, zone.clone());
    }
    metadata.insert(STATUS, UP.to_owned());
    Ok(metadata)
}

/// The pattern of the instance's URI: `{scheme}://{address}:{port}`.
#[derive(Serialize)]
struct UriSpec {
    parts: [Part; 5],
}

#[derive(Serialize)]
struct Part {
    value: &'static str,
    variable: bool,
}

impl UriSpec {
    const ADDRESS: Self = {
        const fn part(value: &'static str, variable: bool) -> Part {
            Part { value, variable }
        }
        Self {
            parts: [
                part("scheme", true),
                part("://", false),
                part("address", true),
                part(":", false),
                part("port", true),
            ],
        }
    };
}

/// The instance in the node `name`.
pub(super) fn decode(name: &str, data: &[u8]) -> Result<Instance, String> {
    // A broken character in the metadata does not hide the instance.
    let text = String::from_utf8_lossy(data);
    let node: Node = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let address = node.address.filter(|address| !address.is_empty());
    let address = address.ok_or("it has no address")?;
    // An instance with TLS only has `sslPort` alone.
    let port = node.port.or(node.ssl_port).ok_or("it has no port")?;
    let port = u16::try_from(port).map_err(|_| format!("the port {port} is not one"))?;
    let instance = Instance::new(address, port).map_err(|error| error.to_string())?;
    let mut meta = node.payload.map(read_metadata).unwrap_or_default();
    if let (Some(_), Some(ssl)) = (node.port, node.ssl_port) {
        meta.entry("sslPort".to_owned()).or_insert(ssl.to_string());
    }
    let health = health(meta.remove(STATUS).as_deref(), node.enabled);
    let tags = meta.remove(TAGS).unwrap_or_default();
    let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    // A weight that is not a number stays in the metadata.
    let weight = meta.get(WEIGHT).and_then(|weight| weight.parse().ok());
    if weight.is_some() {
        meta.remove(WEIGHT);
    }
    let zone = meta.remove(ZONE).filter(|zone| !zone.is_empty());
    Ok(Instance {
        id: name.to_owned(),
        tags: tags.map(str::to_owned).collect(),
        // Weight zero would exclude an instance that is up.
        weight: weight.unwrap_or(1).max(1),
        zone,
        health,
        meta,
        ..instance
    })
}

fn health(status: Option<&str>, enabled: Option<bool>) -> InstanceHealth {
    match status {
        _ if enabled == Some(false) => InstanceHealth::Critical,
        None | Some("") => InstanceHealth::Unknown,
        Some(status) if status.eq_ignore_ascii_case(UP) => InstanceHealth::Passing,
        Some(_) => InstanceHealth::Critical,
    }
}

/// The metadata in a payload: Spring's, or the members of a map of the instance's own.
fn read_metadata(payload: Value) -> BTreeMap<String, String> {
    let Value::Object(mut payload) = payload else {
        return BTreeMap::new();
    };
    let pairs = match payload.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        // Spring's payload without metadata.
        _ if payload.get(CLASS).is_some_and(|class| class == SPRING) => Map::new(),
        _ => payload,
    };
    let text = |(key, value)| match value {
        Value::String(text) if key != CLASS => Some((key, text)),
        Value::Bool(_) | Value::Number(_) => Some((key, value.to_string())),
        _ => None,
    };
    pairs.into_iter().filter_map(text).collect()
}
