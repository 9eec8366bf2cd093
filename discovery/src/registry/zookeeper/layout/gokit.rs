//! Go kit's layout: the node's data is `HOST:PORT`, and its name is free.

use crate::instance::Instance;

/// The start of the name that Go kit's client gives a node, before a random part. It says nothing about
/// the instance.
const PROTECTED: &str = "_c_";

/// The data of an instance.
pub(super) fn encode(instance: &Instance) -> Result<Vec<u8>, String> {
    let lost = [
        ("tags", !instance.tags.is_empty()),
        ("metadata", !instance.meta.is_empty()),
        ("a weight", instance.weight != 1),
        ("a zone", instance.zone.is_some()),
    ];
    match lost.iter().find(|(_, given)| *given) {
        Some((what, _)) => Err(format!(
            "the layout gokit holds HOST:PORT only, and the instance has {what}; use layout=curator"
        )),
        None => Ok(instance.authority().into_bytes()),
    }
}

/// The instance in the node `name`.
pub(super) fn decode(name: &str, data: &[u8]) -> Result<Instance, String> {
    let text = std::str::from_utf8(data).map_err(|_| "the data is not UTF-8".to_owned())?;
    let instance = Instance::parse(text.trim()).map_err(|error| error.to_string())?;
    // Go kit's names change with every registration. The address is the same, and makes one instance
    // of a process and of the node that it left behind when it was killed.
    Ok(if name.starts_with(PROTECTED) {
        instance
    } else {
        instance.with_id(name)
    })
}
