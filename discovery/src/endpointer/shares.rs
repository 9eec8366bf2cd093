//! The shares of the candidates while some of them warm up: which picks of the balancer are accepted.
//!
//! A policy that ignores load gives an endpoint its natural share. A pick of it is accepted with the
//! probability that its warm-up leaves, and otherwise the policy picks again.
//!
//! A policy that compares loads prefers an endpoint with fewer calls, and would give it as many as the
//! others however often its pick is refused. There, an endpoint that warms up is accepted as long as it
//! has had fewer picks than its part of all.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::Instant;

use crate::{balance::Policy, ejection::EjectionPolicy, endpoint::Endpoint, warm_up::WarmUp};

/// The part of its calls that an endpoint receives: less than 1 in the slow start after an ejection, and
/// while it warms up.
pub(crate) fn share_of(
    endpoint: &Endpoint,
    now: Instant,
    ejection: &EjectionPolicy,
    warm_up: &WarmUp,
) -> f64 {
    let stats = endpoint.stats();
    let slow_start = stats.health().slow_start_share(now, ejection);
    let warming = warm_up_share(endpoint, now, warm_up);
    slow_start.min(warming.unwrap_or(1.0))
}

/// The part that the warm-up leaves an endpoint; `None` if it does not warm up.
pub(crate) fn warm_up_share(endpoint: &Endpoint, now: Instant, warm_up: &WarmUp) -> Option<f64> {
    warm_up.share(endpoint.stats().since_joined(now)?)
}

/// See the [module](self).
pub(super) struct Shares {
    /// Those of the candidates, relative to the greatest.
    relative: Vec<f64>,
    /// Running sums of the shares times the weights. The first is zero.
    sums: Vec<f64>,
    /// The picks so far, for a policy that compares loads.
    counts: Option<Counts>,
}

struct Counts {
    /// Picks among the near candidates, and among the far ones.
    all: [AtomicU64; 2],
    of: Vec<AtomicU64>,
    /// A part of a pick. The counts begin anew with each snapshot: without it, each would round up.
    offset: f64,
}

impl Shares {
    /// `None` if all candidates have the same share. `offset` is a random number from 0 to below 1.
    pub(super) fn of(
        candidates: &[Arc<Endpoint>],
        mut shares: Vec<f64>,
        balancer: Option<Policy>,
        offset: f64,
    ) -> Option<Self> {
        let greatest = shares.iter().copied().fold(0.0, f64::max);
        if shares.iter().all(|share| *share >= greatest) {
            return None;
        }
        for share in &mut shares {
            *share /= greatest;
        }
        let compares_loads = matches!(balancer, Some(Policy::LeastRequest | Policy::PeakEwma));
        let weight = |index: usize| {
            if compares_loads {
                f64::from(candidates[index].instance().weight.max(1))
            } else {
                1.0
            }
        };
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        for (index, share) in shares.iter().enumerate() {
            sum += share * weight(index);
            sums.push(sum);
        }
        Some(Self {
            counts: compares_loads.then(|| Counts {
                all: Default::default(),
                of: shares.iter().map(|_| AtomicU64::new(0)).collect(),
                offset,
            }),
            relative: shares,
            sums,
        })
    }

    /// Counts a call that picks among these candidates.
    pub(super) fn begin(&self, part: &Range<usize>) {
        if let Some(counts) = &self.counts {
            counts.all_of(part).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// True if a pick of this endpoint is accepted. `unit` is a random number from 0 to below 1.
    pub(super) fn accepts(&self, index: usize, part: &Range<usize>, unit: f64) -> bool {
        if self.relative[index] >= 1.0 {
            return true;
        }
        let Some(counts) = &self.counts else {
            return unit < self.relative[index];
        };
        let limit = (self.sums[index + 1] - self.sums[index]) / self.sum(part);
        #[allow(clippy::cast_precision_loss, reason = "picks of one snapshot")]
        let [all, taken] = [counts.all_of(part), &counts.of[index]]
            .map(|count| count.load(Ordering::Relaxed) as f64);
        let accepted = taken + counts.offset < limit * all;
        if accepted {
            counts.of[index].fetch_add(1, Ordering::Relaxed);
        }
        accepted
    }

    /// One of these candidates by its share, for a call whose picks were refused.
    pub(super) fn draw(&self, part: &Range<usize>, unit: f64) -> usize {
        let at = self.sums[part.start] + unit * self.sum(part);
        let after = self.sums.partition_point(|sum| *sum <= at);
        let index = after.saturating_sub(1).clamp(part.start, part.end - 1);
        if let Some(counts) = &self.counts {
            counts.of[index].fetch_add(1, Ordering::Relaxed);
        }
        index
    }

    fn sum(&self, part: &Range<usize>) -> f64 {
        self.sums[part.end] - self.sums[part.start]
    }
}

impl Counts {
    /// The picks among the near candidates, which begin at 0, or among the far ones.
    fn all_of(&self, part: &Range<usize>) -> &AtomicU64 {
        &self.all[usize::from(part.start > 0)]
    }
}
