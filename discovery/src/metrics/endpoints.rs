//! One channel's part of `discovery_endpoints`.

use std::sync::Arc;

use super::service::{Counts, EndpointState, ServiceMetrics};
use crate::endpoint::{ConnectivityState, Endpoint, WatchedHealth};

/// Adds a channel's endpoints to those of its service, until it is dropped.
pub(crate) struct Endpoints {
    service: Arc<ServiceMetrics>,
    /// The part of the service's sum that is this channel's.
    counted: Counts,
}

impl Endpoints {
    pub(crate) fn new(service: Arc<ServiceMetrics>) -> Self {
        service.publish();
        Self {
            service,
            counted: Counts::default(),
        }
    }

    /// Counts the endpoints of the channel, and publishes the sum if it changed.
    pub(crate) fn show(&mut self, endpoints: &[Arc<Endpoint>]) {
        self.count(counts(endpoints));
    }

    /// Publishes all metrics of the service.
    pub(crate) fn publish(&self) {
        self.service.publish();
    }

    fn count(&mut self, counts: Counts) {
        if counts != self.counted {
            self.service.replace_endpoints(&self.counted, &counts);
            self.counted = counts;
        }
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.count(Counts::default());
        self.service.publish();
    }
}

fn counts(endpoints: &[Arc<Endpoint>]) -> Counts {
    let mut counts = Counts::default();
    for endpoint in endpoints {
        let state = match endpoint.subchannel().state() {
            _ if endpoint.last_resort().is_some() => EndpointState::Protected,
            ConnectivityState::Ready
                if endpoint.subchannel().watched_health().refusal().is_some() =>
            {
                EndpointState::NotServing
            }
            ConnectivityState::Ready
                if endpoint.subchannel().watched_health() == WatchedHealth::Awaited =>
            {
                EndpointState::Connecting
            }
            ConnectivityState::Ready if endpoint.stats().health().is_admitted() => {
                EndpointState::Ready
            }
            ConnectivityState::Ready => EndpointState::Ejected,
            ConnectivityState::Connecting => EndpointState::Connecting,
            ConnectivityState::TransientFailure | ConnectivityState::Shutdown => {
                EndpointState::Down
            }
            ConnectivityState::Idle => EndpointState::Idle,
        };
        counts[state as usize] += 1;
    }
    counts
}
