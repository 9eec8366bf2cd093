//! The bookkeeping of one attempt: in flight, latency, outcome, and what the outcome says about the
//! endpoint. Every attempt ends here, however it ends.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::time::Instant;

use super::place::Place;
use crate::{
    ejection::Classification,
    endpoint::{Ended, Endpoint},
    retry::usual::MethodSlot,
};

/// An attempt that had less than this many times the mean latency of its method says nothing about
/// its endpoint.
const FAIR_CHANCE: f32 = 1.5;
/// Time for which an endpoint counts as late, as a multiple of the method's overdue time: several calls
/// to it at the rate at which a pause of all would be noticed.
const LATE_WINDOW: u32 = 4;
/// Number of endpoints that are looked at, so that the cost does not depend on the set's size.
const SAMPLE: usize = 16;

/// Counts an attempt as in flight until it is settled or dropped.
pub(super) struct Tracker {
    place: Place,
    method: MethodSlot,
    begun: Instant,
    /// True if the attempt was counted against its endpoint before its end.
    blamed: bool,
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
    pub(super) fn begin(place: Place, method: MethodSlot, begun: Instant) -> Self {
        Self {
            place,
            method,
            begun,
            blamed: false,
        }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.place.endpoint
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Counts the outcome as of `now` and, if `failed` is `Some`, notes the latency; `failed` latencies
    /// count as long.
    pub(super) fn outcome(&self, outcome: Outcome, failed: Option<bool>, now: Instant) {
        let counters = &self.place.shared.counters;
        let counter = match outcome {
            Outcome::Ok => &counters.ok,
            Outcome::Status => &counters.status,
            Outcome::Broken => &counters.broken,
            Outcome::Timeout => &counters.timeout,
            Outcome::Unprocessed => &counters.unprocessed,
        };
        counter.increment(1);
        match (failed, outcome) {
            (Some(failed), _) => {
                let elapsed = now - self.begun;
                self.place.endpoint.stats().end_with(now, elapsed, failed);
                self.place.shared.observe(self.method, elapsed, now, failed);
            }
            // Not the instance's failure: it has not received it.
            (None, Outcome::Unprocessed) => {}
            (None, _) => self.place.endpoint.stats().count(now, Ended::Failed),
        }
    }

    /// Notes an attempt that one elsewhere has overtaken before it was overdue.
    pub(super) fn overtaken(&self) {
        let (now, _) = self.observe(false);
        self.place.endpoint.stats().count(now, Ended::Overtaken);
    }

    /// Notes the time since it began as a latency of the endpoint.
    pub(super) fn observe(&self, failed: bool) -> (Instant, Duration) {
        let now = Instant::now();
        let elapsed = now - self.begun;
        self.place.endpoint.stats().observe(now, elapsed, failed);
        (now, elapsed)
    }

    /// Counts an attempt against its endpoint that has not answered yet. Its end counts no more.
    pub(super) fn blame(&mut self) {
        if !self.blamed {
            self.blamed = true;
            self.place.noted = true;
            self.observe(true);
            self.note(Classification::Transport);
        }
    }

    /// True if the endpoint is slower with this attempt than the method is and than others are. `None`
    /// while the method's time is not learnt.
    pub(super) fn stands_out(&self) -> Option<bool> {
        let times = &self.place.shared.times;
        let learnt = times.get(self.method)?;
        let now = Instant::now();
        if now.saturating_duration_since(self.begun) < learnt.fair() {
            return Some(false);
        }
        self.place.endpoint.stats().note_late(now);
        if self.place.trial {
            return Some(true);
        }
        // Somebody answers, so it is not the method, a pause of all, or this process.
        let others_answer = times.was_prompt_since(self.method, self.begun);
        Some(others_answer && !self.others_are_late(now, LATE_WINDOW * learnt.overdue))
    }

    /// True if most of the other endpoints have had a late attempt within this time: when a pause of all
    /// ends, some of them answer before others.
    fn others_are_late(&self, now: Instant, window: Duration) -> bool {
        let snapshot = self.place.shared.endpointer.snapshot();
        let all = &snapshot.all;
        let first = if all.len() > SAMPLE {
            fastrand::usize(..all.len())
        } else {
            0
        };
        let others = all.iter().cycle().skip(first).take(all.len().min(SAMPLE));
        let (mut late, mut seen) = (0, 0);
        for other in others.filter(|other| !other.is(&self.place.endpoint)) {
            seen += 1;
            late += usize::from(other.stats().was_late_since(now, window));
        }
        late * 2 > seen
    }

    /// True if the time since it began is long enough for this method, by what is known of it.
    pub(super) fn had_a_fair_chance(&self) -> Option<bool> {
        let usual = self.place.shared.usual.get(self.method)?;
        Some(self.begun.elapsed() >= usual.mul_f32(FAIR_CHANCE))
    }

    /// Notes the load that the server reports in the trailers of its answer, if the balancer reads it.
    #[cfg(feature = "orca")]
    pub(super) fn note_load(&self, trailers: &HeaderMap) {
        if let Some(record) = self.place.endpoint.stats().load_record()
            && record.note_trailers(trailers, Instant::now())
        {
            self.place.shared.endpointer.review();
        }
    }

    #[cfg(not(feature = "orca"))]
    #[allow(clippy::unused_self, reason = "reports are read with the feature")]
    pub(super) fn note_load(&self, _trailers: &HeaderMap) {}

    /// Ends the attempt with what it says about its endpoint.
    pub(super) fn settle(mut self, classification: Classification) {
        self.place.noted = true;
        if !self.blamed {
            self.note(classification);
        }
    }

    /// Notes what the attempt says about its endpoint, and asks for a review where that may eject it.
    fn note(&self, classification: Classification) {
        let health = self.place.endpoint.stats().health();
        if classification == Classification::Success && !self.place.trial {
            return health.note_success();
        }
        let policies = self.place.shared.policies.load();
        if health.note(classification, self.place.trial, &policies.ejection) {
            self.place.shared.endpointer.review();
        }
    }
}
