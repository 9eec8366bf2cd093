//! Follows the load that the servers report, while weighted round robin makes weights of it.

use tokio::time::Instant;

#[cfg(feature = "orca")]
use super::shares::warm_up_share;
use super::{Task, snapshot::Selection};
#[cfg(feature = "orca")]
use crate::{
    balance::Policy,
    metrics::WeightUpdate,
    orca::{Follow, LoadRecord, ReportedWeight},
};

impl Task {
    /// Updates the endpoints' weights, and counts those of the selected ones. Returns the time of the next
    /// update; `None` while nothing is reported.
    #[cfg(feature = "orca")]
    pub(super) fn follow_load(&self, selection: &Selection, now: Instant) -> Option<Instant> {
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
        self.count_weights(selection, now);
        is_reported.then(|| now + policy.load_reports.update_period)
    }

    /// Counts the weights that the next rotations are made of, as gRFC A78 does.
    #[cfg(feature = "orca")]
    fn count_weights(&self, selection: &Selection, now: Instant) {
        for part in selection.parts() {
            let mut update = WeightUpdate::default();
            for endpoint in part {
                let record = endpoint.stats().load_record();
                match record.map(LoadRecord::reported) {
                    Some(ReportedWeight::Usable(weight)) => update.usable(weight),
                    Some(ReportedWeight::Stale) => update.stale(),
                    Some(ReportedWeight::NotYetUsable) | None => update.not_yet_usable(),
                }
                if warm_up_share(endpoint, now, &self.config.policy.warm_up).is_some() {
                    update.in_slow_start();
                }
            }
            self.config.connector.target.weights.add(&update);
        }
    }

    /// Reports are read with the feature `orca` only.
    #[cfg(not(feature = "orca"))]
    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(super) fn follow_load(&self, _selection: &Selection, _now: Instant) -> Option<Instant> {
        None
    }
}
