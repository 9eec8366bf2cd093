//! One entry of an answer.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{DOWN, TAGS, UP, WEIGHT, ZONE};
use crate::instance::{Instance, InstanceHealth};

/// The key of a Java class, which is not metadata.
const CLASS: &str = "@class";

/// The status of an entry without one, or without an override.
const UNKNOWN: &str = "UNKNOWN";

/// An entry. Unknown members are skipped. What clients write in different forms is read when it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    #[serde(default)]
    instance_id: Option<String>,
    #[serde(default)]
    app: Option<String>,
    #[serde(default)]
    host_name: Option<String>,
    #[serde(default)]
    ip_addr: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    overridden_status: Option<String>,
    /// The same, as some clients write it.
    #[serde(default, rename = "overriddenstatus")]
    overridden_status_in_lower_case: Option<String>,
    #[serde(default)]
    port: Value,
    #[serde(default)]
    secure_port: Value,
    #[serde(default)]
    data_center_info: Value,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    last_dirty_timestamp: Value,
}

fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

impl Entry {
    /// A name for messages.
    pub(crate) fn name(&self) -> &str {
        self.id().unwrap_or("an entry without an ID")
    }

    /// As in Eureka's own clients, the host's name is the ID of an instance without one.
    fn id(&self) -> Option<&str> {
        given(self.instance_id.as_ref()).or_else(|| given(self.host_name.as_ref()))
    }

    pub(crate) fn application(&self) -> Option<&str> {
        given(self.app.as_ref())
    }

    /// The time of the last change by the instance itself, in milliseconds since 1970.
    pub(crate) fn last_dirty(&self) -> Option<i64> {
        let timestamp = &self.last_dirty_timestamp;
        let text = || timestamp.as_str()?.parse().ok();
        timestamp.as_i64().or_else(text)
    }

    /// The status that counts. An override applies to an instance that is up.
    pub(crate) fn status(&self) -> &str {
        let own = given(self.status.as_ref()).unwrap_or(UNKNOWN);
        let overrides = [
            &self.overridden_status,
            &self.overridden_status_in_lower_case,
        ];
        let mut overrides = overrides
            .into_iter()
            .filter_map(|text| given(text.as_ref()));
        match overrides.find(|status| !status.eq_ignore_ascii_case(UNKNOWN)) {
            Some(status) if own.eq_ignore_ascii_case(UP) => status,
            _ => own,
        }
    }

    pub(crate) fn health(&self) -> InstanceHealth {
        match self.status().to_ascii_uppercase().as_str() {
            UP => InstanceHealth::Passing,
            DOWN | "OUT_OF_SERVICE" => InstanceHealth::Critical,
            // The instance is not ready yet, or Eureka waits for its next registration.
            _ => InstanceHealth::Warning,
        }
    }

    /// True if the address and the port are these, and the metadata contains these.
    pub(crate) fn is(&self, host: &str, port: u16, metadata: &BTreeMap<String, String>) -> bool {
        let found = metadata_of(&self.metadata);
        self.ip_addr.as_deref() == Some(host)
            && self.host_name.as_deref() == Some(host)
            && enabled_port(&self.port) == Ok(Some(port))
            // An operator may add metadata by Eureka's own API.
            && metadata.iter().all(|(key, value)| found.get(key) == Some(value))
    }

    /// The address and the status, for messages.
    pub(crate) fn describe(&self) -> String {
        let host = given(self.ip_addr.as_ref()).or_else(|| given(self.host_name.as_ref()));
        let host = host.unwrap_or("no address");
        match enabled_port(&self.port) {
            Ok(Some(port)) => format!("{host}:{port}, or other metadata"),
            _ => format!("{host} without a port"),
        }
    }

    /// The instance, without the service. Fails with the reason.
    pub(crate) fn into_instance(self) -> Result<Instance, String> {
        let health = self.health();
        let port = match enabled_port(&self.port)? {
            Some(port) => port,
            None if enabled_port(&self.secure_port)?.is_some() => {
                return Err("it has no port without TLS, only a secure port".to_owned());
            }
            None => return Err("it has no port that is enabled".to_owned()),
        };
        let mut usable = Err("it has no address".to_owned());
        // The IP address needs no resolver. Some clients leave it empty, or write their own name.
        for host in [&self.ip_addr, &self.host_name] {
            if let (Err(_), Some(host)) = (&usable, given(host.as_ref())) {
                usable = Instance::new(host, port).map_err(|error| error.to_string());
            }
        }
        let mut instance = usable?;
        if let Some(id) = self.id() {
            id.clone_into(&mut instance.id);
        }
        let mut meta = metadata_of(&self.metadata);
        let tags = meta.remove(TAGS).unwrap_or_default();
        let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
        instance.tags = tags.map(str::to_owned).collect();
        // A weight that is not a number stays in the metadata.
        if let Some(weight) = meta
            .get(WEIGHT)
            .and_then(|weight| weight.parse::<u32>().ok())
        {
            meta.remove(WEIGHT);
            // Weight zero would exclude an instance that is up.
            instance.weight = weight.max(1);
        }
        // As in Consul, the zone is also one of the metadata.
        let zone = meta.get(ZONE).cloned().filter(|zone| !zone.is_empty());
        instance.zone = zone.or_else(|| amazon_zone(&self.data_center_info));
        instance.meta = meta;
        instance.health = health;
        Ok(instance)
    }
}

/// The port, or `None` if it is not enabled. Fails for a number that is not a port.
fn enabled_port(port: &Value) -> Result<Option<u16>, String> {
    let (number, enabled) = match port {
        Value::Null => return Ok(None),
        Value::Object(members) => (members.get("$"), members.get("@enabled")),
        plain => (Some(plain), None),
    };
    let enabled = match enabled {
        None => true,
        Some(Value::Bool(enabled)) => *enabled,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        Some(_) => false,
    };
    let Some(number) = number.filter(|_| enabled) else {
        return Ok(None);
    };
    let parsed = match number {
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        Value::Number(number) => number
            .as_u64()
            .and_then(|number| u16::try_from(number).ok()),
        _ => None,
    };
    let parsed = parsed.filter(|port| *port > 0);
    parsed
        .map(Some)
        .ok_or_else(|| format!("the port {number} is not one"))
}

/// The metadata. A value of another type than text is kept as text.
fn metadata_of(metadata: &Value) -> BTreeMap<String, String> {
    let pairs = metadata.as_object().into_iter().flatten();
    let text = |(key, value): (&String, &Value)| match value {
        Value::String(text) if key != CLASS => Some((key.clone(), text.clone())),
        Value::Bool(_) | Value::Number(_) => Some((key.clone(), value.to_string())),
        _ => None,
    };
    pairs.filter_map(text).collect()
}

/// The availability zone of an instance of Amazon's, as Netflix's clients read it.
fn amazon_zone(data_center: &Value) -> Option<String> {
    let metadata: &Map<_, _> = data_center.get("metadata")?.as_object()?;
    let zone = metadata.get("availability-zone")?.as_str()?;
    (!zone.is_empty()).then(|| zone.to_owned())
}
