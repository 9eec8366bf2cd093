//! The entry that a registration writes.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde_json::json;

use super::{TAGS, WEIGHT, ZONE, application, check_id, check_service, read::Entry};
use crate::instance::Instance;

/// The class that Eureka reads for every data center but Amazon's.
const DATA_CENTER: &str = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo";

/// An instance as it is registered.
pub(crate) struct Written {
    instance: Instance,
    metadata: BTreeMap<String, String>,
    /// The time between two renewals, and the time after which the lease may end, in seconds.
    renewal: u64,
    duration: u64,
    /// True if the port serves TLS.
    tls: bool,
}

impl Written {
    /// `duration` is whole seconds. Fails with the reason why Eureka cannot hold the instance.
    pub(crate) fn new(
        instance: &Instance,
        renewal: Duration,
        duration: Duration,
    ) -> Result<Self, String> {
        check_service(&instance.service)?;
        check_id(&instance.id)?;
        if instance.weight == 0 {
            return Err("weight 0 would exclude an instance that is up".to_owned());
        }
        Ok(Self {
            metadata: metadata(instance)?,
            instance: instance.clone(),
            renewal: renewal.as_secs().max(1),
            duration: duration.as_secs(),
            tls: false,
        })
    }

    /// Lists the port as a secure one too: clients that know TLS by it use it, those of this crate do not
    /// distinguish.
    pub(crate) fn with_tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// The body of the registration with this status. `dirty` is the time of this change, in milliseconds
    /// since 1970: Eureka keeps the entry that was changed last.
    pub(crate) fn body(&self, status: &str, dirty: i64) -> Bytes {
        let instance = &self.instance;
        let secure_port = if self.tls {
            json!({ "$": instance.port, "@enabled": "true" })
        } else {
            json!({ "$": 443, "@enabled": "false" })
        };
        let entry = json!({
            "instanceId": instance.id,
            "app": application(&instance.service),
            "hostName": instance.host,
            "ipAddr": instance.host,
            // Clients look services up by this name, in this spelling.
            "vipAddress": instance.service,
            "secureVipAddress": instance.service,
            "status": status,
            "port": { "$": instance.port, "@enabled": "true" },
            "securePort": secure_port,
            "dataCenterInfo": { "@class": DATA_CENTER, "name": "MyOwn" },
            "leaseInfo": {
                "renewalIntervalInSecs": self.renewal,
                "durationInSecs": self.duration,
            },
            "metadata": self.metadata,
            "lastDirtyTimestamp": dirty,
        });
        json!({ "instance": entry }).to_string().into()
    }

    /// True if an entry is this one. Its status does not count: operators override it.
    pub(crate) fn is(&self, entry: &Entry) -> bool {
        entry.is(&self.instance.host, self.instance.port, &self.metadata)
    }
}

fn metadata(instance: &Instance) -> Result<BTreeMap<String, String>, String> {
    if let Some(key) = [TAGS, WEIGHT]
        .into_iter()
        .find(|key| instance.meta.contains_key(*key))
    {
        return Err(format!(
            "the metadata key {key:?} has a meaning of its own in Eureka; use another name"
        ));
    }
    let wrong = |tag: &&String| tag.is_empty() || tag.contains(',') || tag.trim() != tag.as_str();
    if let Some(tag) = instance.tags.iter().find(wrong) {
        return Err(format!(
            "the tag {tag:?} is empty, contains a comma, or has a space at an end"
        ));
    }
    let mut metadata = instance.meta.clone();
    if !instance.tags.is_empty() {
        metadata.insert(TAGS.to_owned(), instance.tags.join(","));
    }
    if instance.weight != 1 {
        metadata.insert(WEIGHT.to_owned(), instance.weight.to_string());
    }
    if let Some(zone) = &instance.zone {
        metadata.insert(ZONE.to_owned(), zone.clone());
    }
    for (key, value) in &metadata {
        if key.is_empty() || key.starts_with('@') {
            return Err(format!(
                "the metadata key {key:?} is empty or begins with @"
            ));
        }
        // Eureka writes them into its XML, which no client can then read, for all instances.
        if [key, value]
            .into_iter()
            .any(|text| text.contains(is_no_xml))
        {
            return Err(format!(
                "the metadata {key:?}: {value:?} contains a character that XML does not have"
            ));
        }
    }
    Ok(metadata)
}

/// True for a character that XML 1.0 does not have (section 2.2).
fn is_no_xml(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}
