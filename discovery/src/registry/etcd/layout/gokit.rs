//! Go kit's entries: the value is the address.

use super::default_id;
use crate::instance::Instance;

const USE_GRPC: &str = "the layout gokit holds an address only; use ?layout=grpc";

pub(super) fn encode(instance: &Instance) -> Result<Vec<u8>, String> {
    let lost = [
        ("tags", !instance.tags.is_empty()),
        ("metadata", !instance.meta.is_empty()),
        ("a weight", instance.weight != 1),
        ("a zone", instance.zone.is_some()),
        ("a datacenter", instance.datacenter.is_some()),
    ];
    match lost.iter().find(|(_, has)| *has) {
        Some((what, _)) => Err(format!("it has {what}, and {USE_GRPC}")),
        None => Ok(instance.authority().into_bytes()),
    }
}

pub(super) fn decode(service: &str, text: &str) -> Result<Instance, String> {
    let instance = Instance::parse(text).map_err(|e| e.to_string())?;
    let id = default_id(service, &instance);
    Ok(instance.with_id(id).with_service(service))
}

pub(super) fn check_filters(tags: bool, datacenter: bool) -> Result<(), String> {
    match (tags, datacenter) {
        (true, _) => Err(format!("cannot filter by tags: {USE_GRPC}")),
        (_, true) => Err(format!("cannot filter by datacenter: {USE_GRPC}")),
        _ => Ok(()),
    }
}
