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
use crate::{
    instance::Instance,
    registry::{Listing, Query},
};

/// A decoded answer to `/v1/health/service/NAME`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The instances that fit the query, in the answer's order.
    pub(super) listing: Listing,
    /// True if the answer has no entry, usable or not.
    pub(super) empty: bool,
}

/// Decodes an answer. Fails if it is not a list, or if none of its elements is a service entry.
/// Service entries that cannot be used are not a failure.
pub(super) fn decode(body: &[u8], query: &Query) -> Result<Decoded, serde_json::Error> {
    // A broken character in one instance's metadata must not hide the other instances.
    let text: Cow<'_, str> = String::from_utf8_lossy(body);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let Found {
        mut instances,
        rejected,
        foreign,
        empty,
    } = deserializer.deserialize_seq(Entries { query })?;
    deserializer.end()?;
    if let Some(first) = rejected.first()
        && instances.is_empty()
        && foreign == rejected.len()
    {
        return Err(serde_json::Error::custom(format!(
            "no service entry in the list: {first}"
        )));
    }
    // An ID is unique on its node only: without an ID, Consul uses the service name on every node.
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (instance, node) in &instances {
        let on = nodes.entry(instance.id.clone()).or_default();
        if !on.contains(node) {
            on.push(node.clone());
        }
    }
    for (instance, node) in &mut instances {
        if nodes.get(&instance.id).is_some_and(|on| on.len() > 1) {
            instance.id = format!("{}@{node}", instance.id);
        }
    }
    let mut listing: Listing = instances
        .into_iter()
        .map(|(instance, _)| instance)
        .collect();
    for reason in rejected {
        listing.reject(reason);
    }
    Ok(Decoded { listing, empty })
}

/// The elements of the list.
struct Found {
    /// With their nodes' names.
    instances: Vec<(Instance, String)>,
    /// The reasons for the entries that cannot be used.
    rejected: Vec<String>,
    /// The number of rejected elements that are not service entries.
    foreign: usize,
    empty: bool,
}

struct Entries<'q> {
    query: &'q Query,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of service entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut found = Found {
            instances: Vec::new(),
            rejected: Vec::new(),
            foreign: 0,
            empty: true,
        };
        while let Some(raw) = entries.next_element::<&RawValue>()? {
            found.empty = false;
            let usable = serde_json::from_str::<Entry<'_>>(raw.get())
                .map_err(|e| e.to_string())
                .and_then(|entry| entry.into_instance(self.query));
            match usable {
                Ok(Some(instance)) => found.instances.push(instance),
                Ok(None) => {}
                Err(reason) => {
                    found.foreign += usize::from(!is_entry(raw.get()));
                    found.rejected.push(reason);
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
