//! The entries of Eureka: how an instance is written as JSON, and read from an answer.
//!
//! An entry has an address, a port, a status and metadata. What else an instance has stands in the
//! metadata, under the keys `tags` (separated by commas), `weight` and `zone`. Spring Cloud's clients
//! keep the zone under the same key.

mod list;
mod read;
mod write;

pub(super) use self::{
    list::{Lookup, applications, decode},
    read::Entry,
    write::Written,
};
use crate::instance::InstanceHealth;
use crate::registry::CheckState;

/// The keys in the metadata.
const TAGS: &str = "tags";
const WEIGHT: &str = "weight";
const ZONE: &str = "zone";

/// The only status of an instance that may be called.
pub(super) const UP: &str = "UP";

/// The status of an instance that is about to be removed.
pub(super) const DOWN: &str = "DOWN";

/// An application's name as Eureka lists it. Its own clients write it so, too.
pub(super) fn application(service: &str) -> String {
    service.to_uppercase()
}

/// Fails with the reason if the name cannot be that of an application or a VIP address.
pub(super) fn check_service(service: &str) -> Result<(), String> {
    // A comma separates the VIP addresses of an instance.
    check_name("service name", service, &['/', '\\', ','])
}

/// Fails with the reason if the ID cannot stand in the path of a request.
fn check_id(id: &str) -> Result<(), String> {
    check_name("ID", id, &['/', '\\'])
}

fn check_name(what: &str, name: &str, excluded: &[char]) -> Result<(), String> {
    let reason = if name.is_empty() {
        "is empty".to_owned()
    } else if matches!(name, "." | "..") {
        "cannot stand in a URL path".to_owned()
    } else if name.chars().any(char::is_control) {
        "contains a control character".to_owned()
    } else if let Some(found) = name.chars().find(|c| excluded.contains(c)) {
        format!("contains {found:?}, which Eureka does not take")
    } else {
        return Ok(());
    };
    Err(format!("the {what} {name:?} {reason}"))
}

/// The state of the own instance's check: passing while its status is `UP`.
pub(super) fn check_state(entry: &Entry) -> CheckState {
    match entry.health() {
        InstanceHealth::Passing => CheckState::Passing,
        _ => CheckState::critical(format!("the status in Eureka is {}", entry.status())),
    }
}

#[cfg(test)]
mod tests;
