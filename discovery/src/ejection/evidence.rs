//! The comparison of one endpoint's failures with those of all others over the same time.
//!
//! If an endpoint fails like the others, each failure of the set is its own with the probability that is
//! its share of the calls, whatever the common cause, and however often all of them fail. The number of
//! its own failures is then a binomial one. [`surprise`] bounds how probable so many of them are
//! (Chernoff's bound, W. Hoeffding: Probability Inequalities for Sums of Bounded Random Variables, 1963).
//!
//! The comparison is made while failures come in ([`Evidence`]), so that it ends as soon as they suffice.

use std::time::Duration;

use tokio::time::Instant;

use super::counters::Totals;

/// Factor by which the failing share of an outlier exceeds that of all others together.
const STANDS_OUT: f64 = 3.0;
/// Surprise from which on the failures since they began are evidence: an endpoint that fails like the
/// others has them with a probability of at most one in a hundred thousand. Comparisons are repeated
/// while failures come in, so it is low.
const SUDDEN: f64 = 11.5;
/// The same over a whole window, which is compared about once a second, and after an ejection: one in a
/// thousand.
const OVER_A_WINDOW: f64 = 6.9;
/// The surprise of a run of failures from which on it is evidence: one in a hundred million calls begins
/// one by chance.
const RUN: f64 = 18.4;
/// Probability of a run from which on failures of the others in the same time are taken for its cause.
const COMMON_CAUSE: f64 = 1e-4;

/// The natural logarithm of the inverse of a bound: an endpoint that fails like all others has so many of
/// their failures with a probability of at most `exp(-surprise)`. Zero if it has no more than its share.
#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 calls")]
pub(super) fn surprise(own: Totals, others: Totals) -> f64 {
    let failures = own.bad + others.bad;
    let calls = own.calls() + others.calls();
    if failures == 0 || others.calls() == 0 {
        return 0.0;
    }
    let expected = own.calls() as f64 / calls as f64;
    let observed = own.bad as f64 / failures as f64;
    if observed <= expected {
        return 0.0;
    }
    // The Kullback-Leibler divergence of the two shares.
    let rest = if observed < 1.0 {
        (1.0 - observed) * ((1.0 - observed) / (1.0 - expected)).ln()
    } else {
        0.0
    };
    failures as f64 * (observed * (observed / expected).ln() + rest)
}

/// What a share must be to eject.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threshold {
    /// The failing share.
    pub(super) share: f64,
    /// The number of calls of the endpoint, and of the others.
    pub(super) calls: u64,
}

impl Threshold {
    /// True if the failures since they began single out the endpoint. One that was ejected a short time
    /// ago needs less evidence: a relapse is far more probable than a first fault.
    pub(super) fn is_exceeded_suddenly(self, own: Totals, others: Totals, relapse: bool) -> bool {
        let least = if relapse { OVER_A_WINDOW } else { SUDDEN };
        self.is_exceeded(own, others) && surprise(own, others) >= least
    }

    /// True if those of a window do.
    pub(super) fn is_exceeded_over_a_window(self, own: Totals, others: Totals) -> bool {
        self.is_exceeded(own, others) && surprise(own, others) >= OVER_A_WINDOW
    }

    fn is_exceeded(self, own: Totals, others: Totals) -> bool {
        own.calls() >= self.calls
            && others.calls() >= self.calls
            && own.failing() >= self.share
            && own.failing() >= STANDS_OUT * others.failing()
    }
}

/// True if a success rate below the others' is more than chance.
pub(super) fn is_more_than_chance(own: Totals, others: Totals) -> bool {
    surprise(own, others) >= OVER_A_WINDOW
}

/// True if a run of failures singles out an endpoint, beside others of which this share of the calls
/// fails.
pub(super) fn is_run_of_one(run: u32, others: f64) -> bool {
    f64::from(run) * -others.ln() >= RUN
}

/// True if the others' failures in the same time say that a run of failures has a common cause: an endpoint
/// that fails like them has such a run with a probability of more than one in ten thousand. It is the mean
/// over the rates that the others' failures allow (Laplace's rule of succession).
pub(super) fn is_common_cause(run: u32, others: Totals) -> bool {
    if others.bad == 0 {
        return false;
    }
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 calls")]
    let (bad, calls) = (others.bad as f64, others.calls() as f64);
    let probability = (0..run)
        .map(f64::from)
        .map(|nth| (bad + 1.0 + nth) / (calls + 2.0 + nth))
        .product::<f64>();
    probability > COMMON_CAUSE
}

/// The failures of an endpoint since they began, beside the calls of all endpoints in the same time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    begun: Option<Instant>,
    own: Totals,
    others: Totals,
}

impl Evidence {
    /// Adds the calls since the last comparison, and returns those of the endpoint and of the others
    /// since its failures began. They begin anew after the window, and when the share is far below the
    /// one that ejects: then the endpoint did not fail in a part of the time.
    pub(super) fn add(
        &mut self,
        now: Instant,
        (own, others): (Totals, Totals),
        window: Duration,
        share: f64,
    ) -> (Totals, Totals) {
        let begun = *self.begun.get_or_insert(now);
        self.own = self.own.with(own);
        self.others = self.others.with(others);
        let seen = (self.own, self.others);
        if self.own.bad == 0 || self.own.failing() < share / 2.0 || begun + window <= now {
            *self = Self::default();
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(bad: u64, calls: u64) -> Totals {
        Totals {
            good: calls - bad,
            bad,
        }
    }

    /// The probability of at least `least` of `count` trials.
    fn binomial_tail(least: u32, count: u32, probability: f64) -> f64 {
        let mut tail = 0.0;
        for successes in least..=count {
            let ways: f64 = (0..successes)
                .map(|n| f64::from(count - n) / f64::from(n + 1))
                .product();
            let failures = i32::try_from(count - successes).unwrap();
            let power = i32::try_from(successes).unwrap();
            tail += ways * probability.powi(power) * (1.0 - probability).powi(failures);
        }
        tail
    }

    #[test]
    fn the_surprise_bounds_the_probability_of_so_many_failures() {
        for share in [2_u64, 3, 6, 50] {
            for failures in [1_u32, 5, 20, 60] {
                for own in 0..=failures {
                    let calls = 10_000;
                    let own_totals = totals(own.into(), calls);
                    let others = totals((failures - own).into(), calls * (share - 1));
                    let bound = (-surprise(own_totals, others)).exp();
                    #[allow(clippy::cast_precision_loss)]
                    let exact = binomial_tail(own, failures, 1.0 / share as f64);
                    assert!(
                        exact <= bound * 1.000_001,
                        "{own} of {failures} at a share of 1/{share}: {exact} > {bound}"
                    );
                }
            }
        }
    }

    #[test]
    fn one_that_has_all_failures_is_singled_out_by_seven_of_them_among_six() {
        let threshold = Threshold {
            share: 0.2,
            calls: 5,
        };
        let sudden = |bad, calls| {
            let (own, others) = (totals(bad, calls), totals(0, calls * 5));
            threshold.is_exceeded_suddenly(own, others, false)
        };
        assert!(!sudden(6, 20));
        assert!(sudden(7, 25));
        // A share that does not eject.
        assert!(!sudden(7, 100));
        // A relapse, at a small share of the calls.
        assert!(threshold.is_exceeded_suddenly(totals(2, 7), totals(0, 350), true));
    }

    #[test]
    fn the_more_the_others_fail_the_longer_is_a_run_that_singles_one_out() {
        for (others, least) in [(0.0, 1), (0.001, 3), (0.01, 4), (0.025, 5), (0.3, 16)] {
            assert!(is_run_of_one(least, others), "{least} beside {others}");
            assert!(
                least == 1 || !is_run_of_one(least - 1, others),
                "{least} - 1 beside {others}"
            );
        }
        assert!(!is_run_of_one(u32::MAX, 1.0));
    }

    #[test]
    fn failures_of_the_others_at_the_same_time_are_a_common_cause() {
        assert!(
            !is_common_cause(5, totals(0, 3)),
            "the others had no failure"
        );
        assert!(!is_common_cause(5, totals(1, 25)));
        assert!(is_common_cause(5, totals(7, 25)));
        assert!(!is_common_cause(20, totals(7, 25)));
    }
}
