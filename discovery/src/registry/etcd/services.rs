//! The names of the services in etcd, by the keys below the prefix.

use std::collections::BTreeSet;

use super::{
    client::Client,
    proto::{RANGE, RangeRequest, RangeResponse, prefix_end},
};
use crate::registry::RegistryError;

/// The names of the services with an entry, sorted. Reads all entries below the prefix.
pub(super) async fn services(client: &Client) -> Result<Vec<String>, RegistryError> {
    let prefix = format!("{}/", client.config().key_prefix());
    let request = RangeRequest {
        range_end: prefix_end(prefix.as_bytes()),
        key: prefix.clone().into_bytes(),
    };
    let answer: RangeResponse = client.call("list the services", RANGE, &request).await?;
    let names = answer.kvs.iter().filter_map(|entry| {
        let key = str::from_utf8(&entry.key).ok()?;
        // The last part of a key is the entry of an instance. A service's name may have slashes.
        let (service, _instance) = key.strip_prefix(&prefix)?.rsplit_once('/')?;
        Some(service.to_owned())
    });
    Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
}
