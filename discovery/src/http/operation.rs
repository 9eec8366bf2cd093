//! Tells the operations of a service apart, for what is learnt of their answers.

use http::Method;

use crate::hash;

/// The hash of an operation: the method, and the path without the parts that identify a thing. A part with
/// a digit counts as such.
pub(super) fn hash(method: &Method, path: &str) -> u64 {
    let seed = hash::bytes(method.as_str().as_bytes());
    path.split('/').fold(seed, |hash, part| {
        let is_id = part.bytes().any(|byte| byte.is_ascii_digit());
        let part = if is_id { "*" } else { part };
        hash::nth(hash ^ hash::bytes(part.as_bytes()), 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_different_things_are_one_operation_and_other_paths_or_methods_are_not() {
        let get = |path| hash(&Method::GET, path);
        assert_eq!(get("/orders/17/lines"), get("/orders/98a-b/lines"));
        for other in ["/orders", "/orders/new/lines", "/orders/17", "/17/orders"] {
            assert_ne!(get("/orders/17/lines"), get(other), "{other}");
        }
        assert_ne!(get("/orders"), hash(&Method::POST, "/orders"));
    }
}
