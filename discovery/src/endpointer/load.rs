//! Follows the load that the servers report, while weighted round robin makes weights of it.

use tokio::time::Instant;

use super::Task;
#[cfg(feature = "orca")]
use crate::{balance::Policy, orca::Follow};

impl Task {
    /// Updates the endpoints' weights. Returns the time of the next update; `None` while nothing is
    /// reported.
    #[cfg(feature = "orca")]
    pub(super) fn follow_load(&self, now: Instant) -> Option<Instant> {
        let endpoints = self.set.endpoints();
        let policy = &self.config.policy;
        if policy.balancer_name != Some(Policy::WeightedRoundRobin) {
            for record in endpoints.iter().filter_map(|e| e.stats().load_record()) {
                record.stop();
            }
            return None;
        }
        let mut is_reported = false;
        for endpoint in endpoints {
            let subchannel = endpoint.subchannel();
            is_reported |= endpoint.stats().read_load(now).follow(&Follow {
                now,
                policy: &policy.load_reports,
                instance: endpoint.instance(),
                connected_at: subchannel.connected_at(),
                transport: endpoint.transport(),
                changed: &self.config.connector.changed,
            });
        }
        is_reported.then(|| now + policy.load_reports.update_period)
    }

    /// Reports are read with the feature `orca` only.
    #[cfg(not(feature = "orca"))]
    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(super) fn follow_load(&self, _now: Instant) -> Option<Instant> {
        None
    }
}
