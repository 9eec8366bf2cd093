//! The names of the services in Consul's catalog.

use std::collections::BTreeMap;

use reqwest::Method;

use super::{
    client::{Client, Request},
    config::{Config, datacenters},
};
use crate::registry::RegistryError;

/// The purpose of the request, for messages.
const ACTION: &str = "list the services";

/// The names in the catalog of the first configured datacenter, sorted. With ACLs, those that the token
/// may read.
pub(super) async fn services(
    client: &Client,
    config: &Config,
) -> Result<Vec<String>, RegistryError> {
    let all = config.datacenter.as_deref().map(datacenters);
    let all = all.and_then(Result::ok).unwrap_or_default();
    let mut request = Request::new(Method::GET, "/v1/catalog/services".to_owned(), ACTION);
    request.query = all
        .first()
        .map(|first| ("dc", &**first))
        .into_iter()
        .collect();
    let answer = client.call_ok(request).await?;
    // The values are the tags of all instances.
    let names: BTreeMap<String, Vec<String>> = serde_json::from_slice(&answer.body)
        .map_err(|error| client.malformed(ACTION, error.to_string()))?;
    Ok(names.into_keys().collect())
}
