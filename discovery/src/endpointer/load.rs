//! Follows the load that the servers report, while weighted round robin makes weights of it.

use std::sync::Arc;

use tokio::{sync::Notify, time::Instant};

use super::SetPolicy;
use crate::{balance::Policy, endpoint::Endpoint, orca::Follow};

/// Updates the endpoints' weights. Returns the time of the next update; `None` while nothing is reported.
pub(super) fn follow(
    endpoints: &[Arc<Endpoint>],
    policy: &SetPolicy,
    now: Instant,
    changed: &Arc<Notify>,
) -> Option<Instant> {
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
            changed,
        });
    }
    is_reported.then(|| now + policy.load_reports.update_period)
}
