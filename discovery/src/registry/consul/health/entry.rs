//! One service entry of Consul's answer.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    instance::{Instance, InstanceHealth},
    registry::Query,
};

/// True if the JSON has the least that makes it a service entry.
pub(super) fn is_entry(json: &str) -> bool {
    serde_json::from_str::<Shape<'_>>(json).is_ok()
}

/// The least that a service entry has.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shape<'a> {
    #[serde(rename = "Service", borrow)]
    _service: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry<'a> {
    #[serde(borrow, default)]
    node: Option<Node<'a>>,
    #[serde(borrow)]
    service: Service<'a>,
    #[serde(borrow, default)]
    checks: Option<Vec<Check<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node<'a> {
    #[serde(rename = "Node", borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    address: Option<Cow<'a, str>>,
    #[serde(default)]
    datacenter: Option<String>,
    #[serde(default)]
    meta: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service<'a> {
    #[serde(rename = "ID", default)]
    id: Option<String>,
    #[serde(rename = "Service", default)]
    name: Option<String>,
    #[serde(borrow, default)]
    address: Option<Cow<'a, str>>,
    port: u16,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default)]
    passing: Option<u32>,
    #[serde(default)]
    warning: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a> {
    #[serde(rename = "CheckID", borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
}

impl Check<'_> {
    /// The health that this check alone states.
    fn health(&self) -> InstanceHealth {
        match self.status.as_deref() {
            Some("passing") => InstanceHealth::Passing,
            Some("warning") => InstanceHealth::Warning,
            // Consul's own check of the node: its agent no longer answers the gossip.
            _ if self.id.as_deref() == Some("serfHealth") => InstanceHealth::Lost,
            // Maintenance mode is a critical check, too.
            _ => InstanceHealth::Critical,
        }
    }
}

/// The health that all checks of an instance state together. A check of its own that fails outweighs a
/// lost node.
fn health(checks: &[Check<'_>]) -> InstanceHealth {
    let severity = |health: &InstanceHealth| match health {
        InstanceHealth::Unknown | InstanceHealth::Passing => 0,
        InstanceHealth::Warning => 1,
        InstanceHealth::Lost => 2,
        InstanceHealth::Critical => 3,
    };
    let all = checks.iter().map(Check::health);
    all.max_by_key(severity).unwrap_or(InstanceHealth::Passing)
}

impl Entry<'_> {
    /// The instance and its node's name, or `None` if it does not have the query's tags.
    pub(super) fn into_instance(self, query: &Query) -> Result<Option<(Instance, String)>, String> {
        let Self {
            node,
            service,
            checks,
        } = self;
        let node = node.unwrap_or_default();
        let tags = service.tags.unwrap_or_default();
        if !query.wants_tags(&tags) {
            return Ok(None);
        }
        let given = |address: &Option<Cow<'_, str>>| {
            let address = address.as_deref().filter(|a| !a.is_empty());
            address.map(str::to_owned)
        };
        let host = given(&service.address)
            .or_else(|| given(&node.address))
            .unwrap_or_default();
        let instance = Instance::new(host, service.port)
            .map_err(|e| format!("{}: {e}", service.id.as_deref().unwrap_or("no ID")))?;
        let meta: BTreeMap<_, _> = (service.meta.into_iter().flatten())
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        let node_zone = || node.meta.as_ref()?.get("zone")?.clone();
        let zone = meta.get("zone").cloned().or_else(node_zone);
        let checks = checks.unwrap_or_default();
        let warning = checks
            .iter()
            .any(|c| c.status.as_deref() == Some("warning"));
        let weight = service
            .weights
            .and_then(|w| if warning { w.warning } else { w.passing });
        let instance = Instance {
            id: service
                .id
                .filter(|id| !id.is_empty())
                .unwrap_or(instance.id),
            service: service.name.unwrap_or_else(|| query.service.clone()),
            tags,
            // Weight zero would exclude an instance whose checks pass.
            weight: weight.unwrap_or(1).max(1),
            zone: zone.filter(|z| !z.is_empty()),
            meta,
            datacenter: node.datacenter.filter(|d| !d.is_empty()),
            health: health(&checks),
            ..instance
        };
        Ok(Some((instance, node.name.unwrap_or_default().into_owned())))
    }
}
