//! Names as parts of a URL's path.

/// Checks that a name can be a part of a path. Consul's server sees the slashes and dots of an
/// encoded name, and redirects a path that it would write otherwise.
pub(crate) fn pathable(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("is empty")
    } else if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Err("has an empty, `.` or `..` part and cannot stand in a URL path")
    } else {
        Ok(())
    }
}
