//! The figures a channel shows, through the `metrics` facade: install a recorder before building a
//! channel, and they are there.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `discovery_endpoints` | gauge | `service`, `state`: ready, connecting, down, idle, ejected |
//! | `discovery_calls_total` | counter | `service`, `outcome`: ok, failed |
//! | `discovery_attempts_total` | counter | `service`, `outcome`: ok, status, broken, timeout, unprocessed |
//! | `discovery_retries_total` | counter | `service` |
//! | `discovery_retries_denied_total` | counter | `service`: the retry budget was empty |
//! | `discovery_hedges_total` | counter | `service` |
//! | `discovery_failures_total` | counter | `service`, `code`: calls that ended without an answer |
//! | `discovery_attempt_duration_seconds` | histogram | `service` |

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Unit};

use crate::{
    code::Code,
    endpoint::{ConnectivityState, Endpoint},
};

const ENDPOINTS: &str = "discovery_endpoints";
const CALLS: &str = "discovery_calls_total";
const ATTEMPTS: &str = "discovery_attempts_total";
const RETRIES: &str = "discovery_retries_total";
const DENIED: &str = "discovery_retries_denied_total";
const HEDGES: &str = "discovery_hedges_total";
const FAILURES: &str = "discovery_failures_total";
const DURATION: &str = "discovery_attempt_duration_seconds";

/// Handles to a channel's counters, looked up once: a call only adds.
pub(crate) struct Counters {
    service: String,
    pub(crate) calls_ok: Counter,
    pub(crate) calls_failed: Counter,
    pub(crate) ok: Counter,
    pub(crate) status: Counter,
    pub(crate) broken: Counter,
    pub(crate) timeout: Counter,
    pub(crate) unprocessed: Counter,
    pub(crate) retries: Counter,
    pub(crate) denied: Counter,
    pub(crate) hedges: Counter,
    pub(crate) duration: Histogram,
}

impl Counters {
    pub(crate) fn new(service: &str) -> Self {
        describe();
        let service = service.to_owned();
        let calls =
            |outcome| metrics::counter!(CALLS, "service" => service.clone(), "outcome" => outcome);
        let attempts = |outcome| metrics::counter!(ATTEMPTS, "service" => service.clone(), "outcome" => outcome);
        Self {
            calls_ok: calls("ok"),
            calls_failed: calls("failed"),
            ok: attempts("ok"),
            status: attempts("status"),
            broken: attempts("broken"),
            timeout: attempts("timeout"),
            unprocessed: attempts("unprocessed"),
            retries: metrics::counter!(RETRIES, "service" => service.clone()),
            denied: metrics::counter!(DENIED, "service" => service.clone()),
            hedges: metrics::counter!(HEDGES, "service" => service.clone()),
            duration: metrics::histogram!(DURATION, "service" => service.clone()),
            service,
        }
    }

    /// A call that ended without an answer. Rare, so looked up each time.
    pub(crate) fn failure(&self, code: Code) {
        self.calls_failed.increment(1);
        metrics::counter!(FAILURES, "service" => self.service.clone(), "code" => code.name())
            .increment(1);
    }
}

fn describe() {
    metrics::describe_gauge!(
        ENDPOINTS,
        "Instances known, by the state of their endpoint."
    );
    metrics::describe_counter!(CALLS, "Calls made through a channel.");
    metrics::describe_counter!(ATTEMPTS, "Attempts made for those calls.");
    metrics::describe_counter!(RETRIES, "Attempts made because an earlier one had failed.");
    metrics::describe_counter!(
        DENIED,
        "Retries not made because the retry budget was empty."
    );
    metrics::describe_counter!(HEDGES, "Attempts made because an earlier one was slow.");
    metrics::describe_counter!(FAILURES, "Calls that ended without an answer.");
    metrics::describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time of an attempt to its first answer."
    );
}

/// Handles to a channel's gauges.
pub(crate) struct Gauges {
    ready: Gauge,
    connecting: Gauge,
    down: Gauge,
    idle: Gauge,
    ejected: Gauge,
}

impl Gauges {
    pub(crate) fn new(service: &str) -> Self {
        let gauge =
            |state| metrics::gauge!(ENDPOINTS, "service" => service.to_owned(), "state" => state);
        Self {
            ready: gauge("ready"),
            connecting: gauge("connecting"),
            down: gauge("down"),
            idle: gauge("idle"),
            ejected: gauge("ejected"),
        }
    }

    pub(crate) fn show(&self, endpoints: &[Arc<Endpoint>]) {
        let mut counts = [0_u32; 5];
        for endpoint in endpoints {
            let out = !endpoint.stats().health().is_admitted();
            let index = match endpoint.subchannel().state() {
                ConnectivityState::Ready if out => 4,
                ConnectivityState::Ready => 0,
                ConnectivityState::Connecting => 1,
                ConnectivityState::TransientFailure | ConnectivityState::Shutdown => 2,
                ConnectivityState::Idle => 3,
            };
            counts[index] += 1;
        }
        let gauges = [
            &self.ready,
            &self.connecting,
            &self.down,
            &self.idle,
            &self.ejected,
        ];
        for (gauge, count) in gauges.into_iter().zip(counts) {
            gauge.set(count);
        }
    }
}
