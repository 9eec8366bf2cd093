//! The bookkeeping of one attempt: in flight, latency, outcome, and what the outcome says about the
//! endpoint. Every attempt ends here, however it ends.

use std::sync::Arc;

use tokio::time::Instant;

use super::shared::Shared;
use crate::{ejection::Classification, endpoint::Endpoint};

/// Counts an attempt as in flight until it is settled or dropped.
pub(super) struct Tracker {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    begun: Instant,
    /// True for the one call of a probation.
    trial: bool,
    settled: bool,
}

/// The outcome of an attempt, as the metrics count it.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// A response to hand out.
    Ok,
    /// A status other than OK, before any message.
    Status,
    /// The connection was lost after the request was sent.
    Broken,
    /// The attempt's time was over.
    Timeout,
    /// The server did not begin to process it.
    Unprocessed,
}

impl Tracker {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        endpoint: Arc<Endpoint>,
        trial: bool,
        begun: Instant,
    ) -> Self {
        endpoint.stats().begin();
        Self {
            shared: Arc::clone(shared),
            endpoint,
            begun,
            trial,
            settled: false,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    pub(super) fn is_trial(&self) -> bool {
        self.trial
    }

    /// Counts the outcome and, if it is `Some`, notes the latency; `failed` latencies count as long.
    pub(super) fn outcome(&self, outcome: Outcome, failed: Option<bool>) {
        let counters = &self.shared.counters;
        let counter = match outcome {
            Outcome::Ok => &counters.ok,
            Outcome::Status => &counters.status,
            Outcome::Broken => &counters.broken,
            Outcome::Timeout => &counters.timeout,
            Outcome::Unprocessed => &counters.unprocessed,
        };
        counter.increment(1);
        if let Some(failed) = failed {
            let now = Instant::now();
            let elapsed = now - self.begun;
            self.endpoint.stats().observe(now, elapsed, failed);
            self.shared.observe(elapsed, now, failed);
        }
    }

    /// Ends the attempt with what it says about its endpoint.
    pub(super) fn settle(mut self, classification: Classification) {
        self.settled = true;
        note(&self.shared, &self.endpoint, classification, self.trial);
    }
}

/// Notes what an attempt says about its endpoint, and asks for a review where that may eject it.
pub(super) fn note(
    shared: &Shared,
    endpoint: &Endpoint,
    classification: Classification,
    trial: bool,
) {
    let health = endpoint.stats().health();
    if health.note(classification, trial, &shared.ejection) {
        shared.endpointer.review();
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.endpoint.stats().end();
        if !self.settled && self.trial {
            self.endpoint.stats().health().return_trial();
        }
    }
}
