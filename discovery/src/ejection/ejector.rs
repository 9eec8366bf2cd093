//! The review of a whole set: which endpoints stand out, and which may return.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    counters::{BUCKETS, Totals},
    evidence::{self, Threshold},
    health::Health,
    policy::EjectionPolicy,
    state::{EjectionState, Event},
};

/// The evidence of the two algorithms of gRFC A50, to read.
pub(crate) const FAILING_SHARE: &str = "a failing share far above the others'";
pub(crate) const SUCCESS_RATE: &str = "a success rate far below the mean";

/// A success rate from here on is not an outlier, however small the deviation of the others.
const RATE_GOOD: f64 = 0.95;
/// From this failing share of all others on, failures in a row say nothing about one instance.
const OTHERS_FAIL: f64 = 0.5;

/// Decides over all endpoints of a set together.
#[derive(Debug)]
pub(crate) struct Ejector {
    policy: Arc<EjectionPolicy>,
    bucket_end: Option<Instant>,
}

/// The result of a review. Indices are those of the reviewed slice.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Review {
    /// Newly ejected endpoints, with the reason and the time.
    pub(crate) ejected: Vec<(usize, &'static str, Duration)>,
    /// Endpoints to probe now. [`Health::end_probe`] takes the result.
    pub(crate) probe: Vec<usize>,
    /// Endpoints whose probe or trial call failed, with the reason and the time.
    pub(crate) extended: Vec<(usize, &'static str, Duration)>,
    /// Endpoints that may receive a trial call now.
    pub(crate) probation: Vec<usize>,
    /// Endpoints admitted again.
    pub(crate) admitted: Vec<usize>,
    /// Outliers that were not ejected, because as many endpoints are ejected as may be.
    pub(crate) unenforced: Vec<&'static str>,
    /// The latest time of the next review.
    pub(crate) next: Option<Instant>,
}

impl Ejector {
    pub(crate) fn new(policy: Arc<EjectionPolicy>) -> Self {
        Self {
            policy,
            bucket_end: None,
        }
    }

    /// Replaces the settings.
    pub(crate) fn set_policy(&mut self, policy: Arc<EjectionPolicy>) {
        self.policy = policy;
    }

    /// Reviews every endpoint, and applies the transitions that are due.
    pub(crate) fn review(&mut self, now: Instant, set: &[&Health]) -> Review {
        let mut review = Review::default();
        if !self.policy.enabled {
            // Those that were ejected before it was turned off return.
            for (index, health) in set.iter().enumerate() {
                if !health.is_admitted() && health.apply(Event::TurnedOff, now).is_some() {
                    review.admitted.push(index);
                }
            }
            return review;
        }
        let bucket = self.policy.window / BUCKETS;
        let bucket_ended = *self.bucket_end.get_or_insert(now + bucket) <= now;
        self.bring_back(now, set, &mut review);
        let since = collect(now, set, &self.policy);
        let mut suspects = consecutive(set, &self.policy, &since);
        suspects.extend(suddenly_failing(set, &self.policy, &since));
        if bucket_ended {
            suspects.extend(failing_share(set, &self.policy));
            suspects.extend(success_rate(set, &self.policy));
        }
        self.eject(now, set, &suspects, &mut review);
        if bucket_ended {
            for health in set {
                health.end_bucket(now, &self.policy);
            }
            self.bucket_end = Some(now + bucket);
        }
        review.next = set
            .iter()
            .filter_map(|health| health.ejected_until())
            .chain(self.bucket_end)
            .min();
        review
    }

    pub(super) fn bring_back(&self, now: Instant, set: &[&Health], review: &mut Review) {
        for (index, health) in set.iter().enumerate() {
            match health.review(now, &self.policy) {
                Some(EjectionState::Probing { .. }) => review.probe.push(index),
                Some(EjectionState::Admitted { .. }) => review.admitted.push(index),
                Some(EjectionState::Ejected { until, .. }) => {
                    let reason = health.ejection().map_or("", |ejection| ejection.reason);
                    review.extended.push((index, reason, until - now));
                }
                Some(EjectionState::Probation) => review.probation.push(index),
                None => {}
            }
        }
    }

    /// Ejects the suspects, worst evidence first, up to the maximum share.
    fn eject(
        &self,
        now: Instant,
        set: &[&Health],
        suspects: &[(usize, &'static str)],
        review: &mut Review,
    ) {
        let mut out = set.iter().filter(|health| !health.is_admitted()).count();
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let share = (set.len() as f64 * self.policy.max_share) as usize;
        let limit = share.max(1).min(set.len().saturating_sub(1));
        for (index, reason) in suspects {
            if out >= limit {
                if set[*index].is_admitted() {
                    review.unenforced.push(reason);
                }
                continue;
            }
            let state = set[*index].eject(Event::Outlier(&self.policy), reason, now);
            if let Some(EjectionState::Ejected { until, .. }) = state {
                review.ejected.push((*index, reason, until - now));
                out += 1;
            }
        }
    }
}

/// The calls of an endpoint since its failures began, and those of the others in the same time.
struct Since {
    own: Totals,
    others: Totals,
    /// True if the endpoint was ejected before, and that is not forgiven yet.
    relapse: bool,
}

/// Adds the calls since the last review to the evidence about each endpoint.
fn collect(now: Instant, set: &[&Health], policy: &EjectionPolicy) -> Vec<Since> {
    let fresh: Vec<_> = set.iter().map(|health| health.take_fresh()).collect();
    let all = Totals::sum(&fresh);
    let add = |(health, own): (&&Health, &Totals)| {
        let others = all.without(*own);
        let mut record = health.lock();
        let (own, others) = record.evidence.add(
            now,
            (*own, others),
            policy.window,
            policy.failing_share.min(1.0),
        );
        Since {
            own,
            others,
            relapse: record.machine.ejections() > 0,
        }
    };
    set.iter().zip(&fresh).map(add).collect()
}

/// Endpoints with too many failures in a row, unless the others fail as well: then the cause is the
/// request or something behind all of them, and an ejection only adds to the load of the rest. The more
/// the others fail, the longer is the run that counts.
fn consecutive(
    set: &[&Health],
    policy: &EjectionPolicy,
    since: &[Since],
) -> Vec<(usize, &'static str)> {
    let over: Vec<_> = set
        .iter()
        .enumerate()
        .filter_map(|(index, health)| Some((index, health.exceeded(policy)?)))
        .collect();
    if over.is_empty() {
        return Vec::new();
    }
    let totals: Vec<_> = set.iter().map(|health| health.totals()).collect();
    let all = Totals::sum(&totals);
    over.into_iter()
        .filter(|(index, run)| {
            let others = all.without(totals[*index]).failing();
            // Calls without an answer were compared with those of the others before they were counted.
            let begins_everywhere =
                run.of_statuses && evidence::is_common_cause(run.length, since[*index].others);
            others < OTHERS_FAIL
                && evidence::is_run_of_one(run.length, others)
                && !begins_everywhere
        })
        .map(|(index, run)| (index, run.reason))
        .collect()
}

/// Endpoints whose failures since they began single them out.
fn suddenly_failing(
    set: &[&Health],
    policy: &EjectionPolicy,
    since: &[Since],
) -> Vec<(usize, &'static str)> {
    if !policy.compares_shares() {
        return Vec::new();
    }
    let threshold = threshold(policy);
    let found = since.iter().enumerate();
    let found: Vec<_> = found
        .filter(|(_, one)| threshold.is_exceeded_suddenly(one.own, one.others, one.relapse))
        .map(|(index, _)| (index, FAILING_SHARE))
        .collect();
    // Endpoints without failures have no evidence: the calls of the window count.
    let counted = || {
        let totals = set.iter().map(|health| health.totals());
        totals.filter(|one| one.calls() >= threshold.calls).count()
    };
    if found.is_empty() || counted() < policy.failing_share_instances as usize {
        return Vec::new();
    }
    found
}

fn threshold(policy: &EjectionPolicy) -> Threshold {
    Threshold {
        share: policy.failing_share,
        calls: policy.min_calls.into(),
    }
}

/// Endpoints that fail often within the window, and far more often than all others together.
fn failing_share(set: &[&Health], policy: &EjectionPolicy) -> Vec<(usize, &'static str)> {
    let totals: Vec<_> = set.iter().map(|health| health.totals()).collect();
    let counted = totals
        .iter()
        .filter(|one| one.calls() >= policy.min_calls.into())
        .count();
    if !policy.compares_shares() || counted < policy.failing_share_instances as usize {
        return Vec::new();
    }
    let all = Totals::sum(&totals);
    let threshold = threshold(policy);
    let mut found: Vec<_> = totals
        .iter()
        .enumerate()
        .filter(|(_, one)| threshold.is_exceeded_over_a_window(**one, all.without(**one)))
        .collect();
    found.sort_by(|a, b| b.1.failing().total_cmp(&a.1.failing()));
    found
        .into_iter()
        .map(|(index, _)| (index, FAILING_SHARE))
        .collect()
}

/// Endpoints whose success rate is far below the mean of all (gRFC A50, the first algorithm), by more
/// than chance: of six that fail alike, one is often so many standard deviations below the mean.
fn success_rate(set: &[&Health], policy: &EjectionPolicy) -> Vec<(usize, &'static str)> {
    let totals: Vec<_> = set.iter().map(|health| health.totals()).collect();
    let rates: Vec<_> = totals
        .iter()
        .enumerate()
        .filter(|(_, totals)| totals.calls() >= policy.success_rate_calls.into())
        .map(|(index, totals)| (index, 1.0 - totals.failing()))
        .collect();
    let instances = policy.success_rate_instances.max(1) as usize;
    if rates.len() < instances || policy.success_rate_deviations <= 0.0 {
        return Vec::new();
    }
    #[allow(clippy::cast_precision_loss)]
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates
        .iter()
        .map(|(_, rate)| (rate - mean).powi(2))
        .sum::<f64>()
        / count;
    let threshold = mean - policy.success_rate_deviations * variance.sqrt();
    let all = Totals::sum(&totals);
    rates
        .into_iter()
        .filter(|(_, rate)| *rate < threshold.min(RATE_GOOD))
        .map(|(index, _)| index)
        .filter(|index| {
            let own = totals[*index];
            evidence::is_more_than_chance(own, all.without(own))
        })
        .map(|index| (index, SUCCESS_RATE))
        .collect()
}
