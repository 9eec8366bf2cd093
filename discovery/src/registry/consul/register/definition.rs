//! The body of `PUT /v1/agent/service/register`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::CheckDefinition;
use crate::registry::{Registration, consul::path::pathable};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Definition {
    #[serde(rename = "ID")]
    id: String,
    #[serde(flatten)]
    pub(super) service: Service,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<CheckDefinition>,
}

/// The service, as it is sent and as the agent shows it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Service {
    /// `Name` in the request, `Service` in the answer. The other names are the same in both.
    #[serde(rename(serialize = "Name", deserialize = "Service"))]
    pub(super) name: String,
    pub(super) address: String,
    pub(super) port: u16,
    #[serde(default, deserialize_with = "null_is_default")]
    tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    meta: BTreeMap<String, String>,
    #[serde(default)]
    weights: Weights,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
    warning: u32,
}

impl Definition {
    pub(super) fn new(registration: &Registration) -> Result<Self, String> {
        let instance = &registration.instance;
        pathable(&instance.id).map_err(|reason| format!("the ID {reason}"))?;
        pathable(&instance.service).map_err(|reason| format!("the service name {reason}"))?;
        if !(1..=65535).contains(&instance.weight) {
            return Err(format!("weight {} is outside 1 to 65535", instance.weight));
        }
        let mut meta = instance.meta.clone();
        if let Some(zone) = &instance.zone {
            meta.insert("zone".to_owned(), zone.clone());
        }
        check_meta(&meta)?;
        Ok(Self {
            id: instance.id.clone(),
            service: Service {
                name: instance.service.clone(),
                address: instance.host.clone(),
                port: instance.port,
                tags: instance.tags.clone(),
                meta,
                weights: Weights {
                    passing: instance.weight,
                    warning: 1,
                },
            },
            check: CheckDefinition::new(registration)?,
        })
    }
}

/// Consul's limits on metadata. Checked here, so that the error comes before the first request.
fn check_meta(meta: &BTreeMap<String, String>) -> Result<(), String> {
    if meta.len() > 64 {
        let count = meta.len();
        return Err(format!("{count} metadata keys, Consul accepts up to 64"));
    }
    for (key, value) in meta {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if key.is_empty() || key.len() > 128 || !key.bytes().all(allowed) {
            return Err(format!(
                "metadata key {key:?} is not 1 to 128 letters, digits, - and _"
            ));
        }
        if key.starts_with("consul-") {
            return Err(format!(
                "metadata key {key:?}: Consul reserves the prefix consul-"
            ));
        }
        if value.len() > 512 {
            return Err(format!("metadata value of {key:?} is over 512 bytes"));
        }
    }
    Ok(())
}

/// The type's default for `null`, which Consul writes for empty lists and maps.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
