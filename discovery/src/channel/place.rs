//! The place of a call among those in flight at its endpoint.

use std::sync::Arc;

use super::shared::Shared;
use crate::endpoint::Endpoint;

/// Counts a call as in flight from its pick until this is dropped. An attempt that does not begin gives
/// its place back like one that has ended.
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) endpoint: Arc<Endpoint>,
    /// True for the one call of a probation.
    pub(super) trial: bool,
    /// True if the outcome of the call was noted.
    pub(super) noted: bool,
}

impl Place {
    /// Takes a place. `None` if the endpoint has as many calls as its concurrency limit allows.
    pub(super) fn take(shared: &Arc<Shared>, endpoint: &Arc<Endpoint>) -> Option<Self> {
        endpoint.stats().begin().then(|| Self {
            shared: Arc::clone(shared),
            endpoint: Arc::clone(endpoint),
            trial: false,
            noted: false,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.trial && !self.noted {
            self.endpoint.stats().health().return_trial();
        }
        if self.endpoint.stats().end() {
            self.shared.freed.notify_one();
        }
    }
}
