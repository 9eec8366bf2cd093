//! Says what has happened to the set and its registry: in the log, and to those who read the events.

use std::sync::Arc;

use tracing::{info, warn};

use super::set::{Change, Offer};
use crate::{
    ejection::{FAILING_SHARE, Review, SUCCESS_RATE},
    endpoint::{Connector, Endpoint, Event},
    error::chain,
    event::ChannelEventKind,
    instance::Instance,
    metrics::Detection,
    registry::InstanceSet,
};

/// See the [module](self).
pub(super) struct Report<'c> {
    connector: &'c Connector,
}

impl<'c> Report<'c> {
    /// By the log and the events of this channel's connections.
    pub(super) fn by(connector: &'c Connector) -> Self {
        Self { connector }
    }

    /// The registry has failed, or answers again. Its watch has logged it.
    pub(super) fn registry(&self, before: &InstanceSet, latest: &InstanceSet) {
        match (&before.error, &latest.error) {
            (None, Some(error)) => self.emit(|| ChannelEventKind::RegistryLost {
                reason: chain(&**error),
            }),
            (Some(_), None) => self.emit(|| ChannelEventKind::RegistryBack {
                instances: latest.instances.len(),
            }),
            _ => {}
        }
    }

    /// The set has followed an answer of the registry.
    pub(super) fn change(&self, change: &Change, offer: &Offer<'_>) {
        for instance in &change.added {
            if self.logs(Event::Added) {
                info!(%instance, "instance added");
            }
            let instance = Arc::clone(instance);
            self.emit(|| ChannelEventKind::Added { instance });
        }
        for endpoint in &change.protected {
            if let Some(last_resort) = endpoint.last_resort() {
                self.emit(|| ChannelEventKind::Protected {
                    instance: Arc::clone(endpoint.instance()),
                    withdrawal: last_resort.withdrawal(),
                });
            }
        }
        for instance in &change.returned {
            let instance = Arc::clone(instance);
            self.emit(|| ChannelEventKind::Returned { instance });
        }
        for endpoint in &change.removed {
            let instance = endpoint.instance();
            if self.logs(Event::Removed) {
                info!(%instance, "instance removed");
            }
            self.emit(|| ChannelEventKind::Removed {
                instance: Arc::clone(instance),
                reason: offer
                    .withdrawal(instance)
                    .map_or("not selected", |(withdrawal, _)| withdrawal.reason()),
            });
        }
    }

    /// An endpoint is no longer kept as a last resort.
    pub(super) fn expired(&self, endpoint: &Endpoint, reason: &'static str) {
        let instance = endpoint.instance();
        if self.logs(Event::Removed) {
            info!(%instance, "last resort removed: {reason}");
        }
        let instance = Arc::clone(instance);
        self.emit(|| ChannelEventKind::Removed { instance, reason });
    }

    /// Outlier ejection has reviewed these endpoints.
    pub(super) fn review(&self, review: &Review, endpoints: &[Arc<Endpoint>]) {
        let instance = |index: usize| endpoints[index].instance();
        let ejections = &self.connector.target.ejections;
        for reason in &review.unenforced {
            ejections.unenforced(detection(reason));
        }
        for &(index, reason, time) in &review.ejected {
            ejections.enforced(detection(reason));
            if self.logs(Event::Ejected) {
                warn!(instance = %instance(index), "ejected for {time:?}: {reason}");
            }
        }
        for &(index, reason, time) in review.ejected.iter().chain(&review.extended) {
            self.about(instance(index), |instance| ChannelEventKind::Ejected {
                instance,
                reason,
                time,
            });
        }
        for &index in &review.probation {
            self.about(instance(index), |instance| ChannelEventKind::Probation {
                instance,
            });
        }
        for &index in &review.admitted {
            if self.logs(Event::Admitted) {
                info!(instance = %instance(index), "admitted again");
            }
            self.about(instance(index), |instance| ChannelEventKind::Admitted {
                instance,
            });
        }
    }

    fn about(
        &self,
        instance: &Arc<Instance>,
        kind: impl FnOnce(Arc<Instance>) -> ChannelEventKind,
    ) {
        self.emit(|| kind(Arc::clone(instance)));
    }

    fn emit(&self, kind: impl FnOnce() -> ChannelEventKind) {
        self.connector.events.emit(kind);
    }

    /// True if a line about this event is to be written now.
    fn logs(&self, event: Event) -> bool {
        self.connector.log.admits(event)
    }
}

/// The algorithm that has found an outlier.
fn detection(reason: &str) -> Detection {
    match reason {
        SUCCESS_RATE => Detection::SuccessRate,
        FAILING_SHARE => Detection::FailurePercentage,
        _ => Detection::Consecutive,
    }
}
