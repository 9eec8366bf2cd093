//! Decodes Consul's answer about a service's health.
//!
//! Consul checks few of the values that it registers. So each entry is decoded on its own: an entry
//! that cannot be used is counted and left out, and the others count.

mod entry;

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserializer as _,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use self::entry::{Entry, is_entry};
use crate::{instance::Instance, registry::Query};

/// A decoded answer to `/v1/health/service/NAME`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The instances that fit the query, in the answer's order.
    pub(super) instances: Vec<Instance>,
    /// True if the answer has no entry, usable or not.
    pub(super) empty: bool,
    pub(super) rejected: Rejected,
}

/// The entries that cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) count: u64,
    /// The number of them that are not service entries.
    foreign: u64,
    /// The reason for the first of them.
    pub(super) first: Option<String>,
}

/// Decodes an answer. Fails if it is not a list, or if none of its elements is a service entry.
/// Service entries that cannot be used are not a failure.
pub(super) fn decode(body: &[u8], query: &Query) -> Result<Decoded, serde_json::Error> {
    // A broken character in one instance's metadata must not hide the other instances.
    let text: Cow<'_, str> = String::from_utf8_lossy(body);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let (mut found, rejected, empty) = deserializer.deserialize_seq(Entries { query })?;
    deserializer.end()?;
    if rejected.foreign > 0 && found.is_empty() && rejected.foreign == rejected.count {
        let first = rejected.first.unwrap_or_default();
        return Err(serde_json::Error::custom(format!(
            "no service entry in the list: {first}"
        )));
    }
    // An ID is unique on its node only: without an ID, Consul uses the service name on every node.
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (instance, node) in &found {
        let on = nodes.entry(instance.id.clone()).or_default();
        if !on.contains(node) {
            on.push(node.clone());
        }
    }
    for (instance, node) in &mut found {
        if nodes.get(&instance.id).is_some_and(|on| on.len() > 1) {
            instance.id = format!("{}@{node}", instance.id);
        }
    }
    Ok(Decoded {
        instances: found.into_iter().map(|(instance, _)| instance).collect(),
        empty,
        rejected,
    })
}

struct Entries<'q> {
    query: &'q Query,
}

impl<'de> Visitor<'de> for Entries<'_> {
    /// The instances with their nodes' names, the rejected entries, and true if there is no entry.
    type Value = (Vec<(Instance, String)>, Rejected, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of service entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        let mut rejected = Rejected::default();
        let mut empty = true;
        while let Some(raw) = entries.next_element::<&RawValue>()? {
            empty = false;
            let usable = serde_json::from_str::<Entry<'_>>(raw.get())
                .map_err(|e| e.to_string())
                .and_then(|entry| entry.into_instance(self.query));
            match usable {
                Ok(Some(instance)) => found.push(instance),
                Ok(None) => {}
                Err(reason) => {
                    rejected.count += 1;
                    rejected.foreign += u64::from(!is_entry(raw.get()));
                    rejected.first.get_or_insert(reason);
                }
            }
        }
        Ok((found, rejected, empty))
    }
}

#[cfg(test)]
mod tests;
