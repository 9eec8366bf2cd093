//! The runtime's clock in the standard library's type, which stands in the public API. Tests pause it.

use std::time::Instant;

/// The current time.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
