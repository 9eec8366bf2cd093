//! Decodes Consul's answer about a service's health.
//!
//! Consul checks few of the values that it registers. So each entry is decoded on its own: an entry
//! that cannot be used is counted and left out, and the others count.

mod entry;
mod names;

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer as _,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use self::entry::{Entry, is_entry};
pub(super) use self::names::Names;
use crate::{
    instance::Instance,
    registry::{Listing, Query},
};

/// A decoded answer to `/v1/health/service/NAME`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The instances that have the query's tags, with their nodes' names, in the answer's order.
    pub(super) found: Vec<(Instance, String)>,
    /// The reasons for the entries that cannot be used.
    pub(super) rejected: Vec<String>,
    /// True if the answer has no entry, usable or not.
    pub(super) empty: bool,
}

impl Decoded {
    /// The instances under their names in this watch.
    pub(super) fn into_listing(self, names: &mut Names) -> Listing {
        let mut listing: Listing = names.give(self.found).into_iter().collect();
        for reason in self.rejected {
            listing.reject(reason);
        }
        listing
    }
}

/// Decodes an answer. Fails if it is not a list, or if none of its elements is a service entry.
/// Service entries that cannot be used are not a failure.
pub(super) fn decode(body: &[u8], query: &Query) -> Result<Decoded, serde_json::Error> {
    // A broken character in one instance's metadata must not hide the other instances.
    let text: Cow<'_, str> = String::from_utf8_lossy(body);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let Found {
        instances,
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
    Ok(Decoded {
        found: instances,
        rejected,
        empty,
    })
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
