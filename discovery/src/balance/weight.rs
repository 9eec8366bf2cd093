//! The weights that policies use.

use crate::endpoint::Endpoint;

/// The endpoint's weight in the registry, limited to 1 to 65535 (Consul's range).
pub(super) fn weight(endpoint: &Endpoint) -> u32 {
    endpoint.instance().weight.clamp(1, 65_535)
}
