//! Looks at the records of a whole set together: who stands out, who may come back.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    EjectionPolicy, EjectionState,
    health::{BUCKETS, Health, Totals},
};

/// A success rate that stands out needs this many instances and calls of each to compare (A50).
const RATE_INSTANCES: usize = 5;
const RATE_CALLS: u64 = 100;
/// A rate this good is no outlier, however small the deviation among the rest.
const RATE_GOOD: f64 = 0.95;
/// From this failing share of all others on, failures in a row say nothing about one instance.
const OTHERS_FAIL: f64 = 0.5;
/// How much more often than all others together an instance must fail to stand out.
const STANDS_OUT: f64 = 3.0;

/// Decides, over all endpoints of a set together.
#[derive(Debug)]
pub(crate) struct Ejector {
    policy: EjectionPolicy,
    next_roll: Option<Instant>,
}

/// What changed in a review. Indices are those of the reviewed slice.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Review {
    /// Whether any endpoint's state changed.
    pub(crate) changed: bool,
    /// Newly ejected, with the reason and the time.
    pub(crate) ejected: Vec<(usize, &'static str, Duration)>,
    /// Time is over: to be probed now, with [`Health::conclude`] told the result.
    pub(crate) probe: Vec<usize>,
    /// Back from probation.
    pub(crate) admitted: Vec<usize>,
    /// When to review again at the latest.
    pub(crate) next: Option<Instant>,
}

impl Ejector {
    pub(crate) fn new(policy: EjectionPolicy) -> Self {
        Self {
            policy,
            next_roll: None,
        }
    }

    /// Looks at every endpoint's record and moves those that have to move.
    pub(crate) fn review(&mut self, now: Instant, set: &[&Health]) -> Review {
        let mut review = Review::default();
        if !self.policy.enabled {
            return review;
        }
        let bucket = self.policy.window / BUCKETS;
        let roll = *self.next_roll.get_or_insert(now + bucket) <= now;
        self.bring_back(now, set, &mut review);
        let mut suspects = consecutive(set, &self.policy);
        if roll {
            suspects.extend(failing_share(set, &self.policy));
            suspects.extend(success_rate(set, &self.policy));
        }
        self.eject(now, set, &suspects, &mut review);
        if roll {
            for health in set {
                health.roll(now, &self.policy);
            }
            self.next_roll = Some(now + bucket);
        }
        review.changed |= !review.ejected.is_empty() || !review.admitted.is_empty();
        review.next = set
            .iter()
            .filter(|health| health.state() == EjectionState::Ejected)
            .filter_map(|health| health.lock().until)
            .chain(self.next_roll)
            .min();
        review
    }

    pub(super) fn bring_back(&self, now: Instant, set: &[&Health], review: &mut Review) {
        for (index, health) in set.iter().enumerate() {
            match health.state() {
                EjectionState::Admitted => {}
                EjectionState::Ejected => {
                    if health.lock().until.is_none_or(|until| until <= now) {
                        health.set(EjectionState::Probing);
                        health.forget_result();
                        review.probe.push(index);
                    }
                }
                EjectionState::Probing => match health.take_result() {
                    Some(true) => {
                        // In this order: a trial taken in between would be given away again.
                        health.return_trial();
                        health.set(EjectionState::Probation);
                        review.changed = true;
                    }
                    Some(false) => {
                        health.eject(now, &self.policy);
                    }
                    None => {}
                },
                EjectionState::Probation => match health.take_result() {
                    Some(true) => {
                        health.admit(now);
                        review.admitted.push(index);
                    }
                    Some(false) => {
                        health.eject(now, &self.policy);
                        review.changed = true;
                    }
                    None => {}
                },
            }
        }
    }

    /// Ejects the suspects, worst evidence first, as far as the largest share allows.
    fn eject(
        &self,
        now: Instant,
        set: &[&Health],
        suspects: &[(usize, &'static str)],
        review: &mut Review,
    ) {
        let mut out = set
            .iter()
            .filter(|health| health.state() != EjectionState::Admitted)
            .count();
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let share = (set.len() as f64 * self.policy.max_share) as usize;
        let limit = share.max(1).min(set.len().saturating_sub(1));
        for (index, reason) in suspects {
            if out >= limit {
                return;
            }
            if set[*index].state() == EjectionState::Admitted {
                let time = set[*index].eject(now, &self.policy);
                review.ejected.push((*index, reason, time));
                out += 1;
            }
        }
    }
}

/// Those that failed too often in a row, unless the others fail as well: then it is the request or
/// something behind all of them, and taking some out would only load the rest.
fn consecutive(set: &[&Health], policy: &EjectionPolicy) -> Vec<(usize, &'static str)> {
    let over: Vec<_> = set
        .iter()
        .enumerate()
        .filter_map(|(index, health)| Some((index, health.runs_over(policy)?)))
        .collect();
    if over.is_empty() {
        return over;
    }
    let totals: Vec<_> = set.iter().map(|health| health.totals()).collect();
    let all = Totals::sum(&totals);
    over.into_iter()
        .filter(|(index, _)| all.without(totals[*index]).failing() < OTHERS_FAIL)
        .collect()
}

/// Those that fail often, and far more often than all the others together.
fn failing_share(set: &[&Health], policy: &EjectionPolicy) -> Vec<(usize, &'static str)> {
    let totals: Vec<_> = set.iter().map(|health| health.totals()).collect();
    let all = Totals::sum(&totals);
    let mut found: Vec<_> = totals
        .iter()
        .enumerate()
        .filter(|(_, one)| {
            let others = all.without(**one);
            policy.failing_share < 1.0
                && one.calls() >= policy.min_calls.into()
                && others.calls() >= policy.min_calls.into()
                && one.failing() >= policy.failing_share
                && one.failing() >= STANDS_OUT * others.failing()
        })
        .collect();
    found.sort_by(|a, b| b.1.failing().total_cmp(&a.1.failing()));
    found
        .into_iter()
        .map(|(index, _)| (index, "a failing share far above the others'"))
        .collect()
}

/// Those whose success rate is far below the mean of all (A50's first algorithm).
fn success_rate(set: &[&Health], policy: &EjectionPolicy) -> Vec<(usize, &'static str)> {
    let rates: Vec<_> = set
        .iter()
        .enumerate()
        .map(|(index, health)| (index, health.totals()))
        .filter(|(_, totals)| totals.calls() >= RATE_CALLS)
        .map(|(index, totals)| (index, 1.0 - totals.failing()))
        .collect();
    if rates.len() < RATE_INSTANCES || policy.success_rate_deviations <= 0.0 {
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
    rates
        .into_iter()
        .filter(|(_, rate)| *rate < threshold.min(RATE_GOOD))
        .map(|(index, _)| (index, "a success rate far below the mean"))
        .collect()
}
