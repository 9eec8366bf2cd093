//! Ejection beside noise, by simulated calls: no instance is ejected for what all have, and one that fails
//! often is found within few calls.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::*;

const INSTANCES: usize = 6;
/// Calls per second where each instance has one.
const ONE_EACH: u32 = 6;
/// Calls per second, all instances together.
const RATE: u32 = 500;
const HOUR: u32 = 3_600;

/// Calls of a set in turn, each of which fails with a probability by its number and instance.
struct Simulated {
    set: Vec<Health>,
    ejector: Ejector,
    policy: Arc<EjectionPolicy>,
    rng: Rng,
    now: Instant,
    next: Instant,
}

impl Simulated {
    fn new(seed: u64) -> Self {
        let policy = Arc::new(EjectionPolicy::default());
        let now = Instant::now();
        Self {
            set: (0..INSTANCES).map(|_| Health::default()).collect(),
            ejector: Ejector::new(Arc::clone(&policy)),
            policy,
            rng: Rng::with_seed(seed),
            now,
            next: now,
        }
    }

    /// Makes calls until an instance is ejected. Returns it and the number of its calls, or `None` if none
    /// was in so many calls.
    fn ejected(
        &mut self,
        calls: u32,
        failure: Classification,
        failing: impl Fn(u32, usize) -> f64,
    ) -> Option<(usize, u32)> {
        let mut received = [0; INSTANCES];
        for call in 0..calls {
            self.now += Duration::from_secs(1) / RATE;
            // Retries and other clients make the rotation uneven.
            let index = self.rng.usize(..INSTANCES);
            received[index] += 1;
            let failed = self.rng.f64() < failing(call, index);
            let classification = if failed {
                failure
            } else {
                Classification::Success
            };
            let suspect = self.set[index].note(classification, false, &self.policy);
            if !suspect && self.now < self.next {
                continue;
            }
            let set: Vec<_> = self.set.iter().collect();
            let review = self.ejector.review(self.now, &set);
            self.next = review.next.unwrap();
            if let Some((index, ..)) = review.ejected.first() {
                return Some((*index, received[*index]));
            }
        }
        None
    }
}

#[test]
fn nobody_is_ejected_in_an_hour_in_which_one_call_in_a_hundred_fails_everywhere() {
    for failure in [Classification::Status, Classification::Transport] {
        let ejected = Simulated::new(1).ejected(HOUR * RATE, failure, |_, _| 0.01);
        assert_eq!(ejected, None, "{failure:?}");
    }
}

#[test]
fn nobody_is_ejected_in_an_hour_in_which_three_calls_in_ten_fail_everywhere() {
    let failure = Classification::Status;
    let ejected = Simulated::new(2).ejected(HOUR * RATE, failure, |_, _| 0.3);
    assert_eq!(ejected, None);
}

#[test]
fn hardly_anybody_is_ejected_when_all_begin_to_fail_at_the_same_moment() {
    let fault = |call, _| if call < 20 * RATE { 0.0 } else { 0.3 };
    let ejected = |seed| {
        let failure = Classification::Status;
        Simulated::new(seed).ejected(30 * RATE, failure, fault)
    };
    // In the first moments a run of five may happen before any other instance has failed.
    let chance = (0..100).filter(|seed| ejected(*seed).is_some()).count();
    assert!(chance <= 5, "in {chance} of 100 outages");
}

#[test]
fn an_instance_that_alone_fails_three_calls_in_ten_is_ejected_within_sixty_of_them() {
    const SEEDS: u64 = 400;
    // One that is new, and one that has worked for a while.
    for healthy in [0, 20 * RATE] {
        let mut counts: Vec<_> = (0..SEEDS)
            .map(|seed| {
                let mut simulated = Simulated::new(seed);
                let good = simulated.ejected(healthy, Classification::Status, |_, _| 0.0);
                assert_eq!(good, None);
                let fault = |_, index| if index == 3 { 0.3 } else { 0.0 };
                let ejected = simulated.ejected(100 * RATE, Classification::Status, fault);
                let (index, calls) = ejected.unwrap();
                assert_eq!(index, 3);
                calls
            })
            .collect();
        counts.sort_unstable();
        let of = |share: usize| counts[counts.len() * share / 100];
        let figures = [of(50), of(90), of(96)];
        assert!(
            figures[0] <= 35 && figures[1] <= 50 && figures[2] <= 60,
            "{figures:?}"
        );
    }
}

#[test]
fn a_few_failures_of_few_calls_eject_nobody() {
    // One call a second to each instance, of which one in a hundred fails.
    for seed in 0..20 {
        let mut simulated = Simulated::new(seed);
        for _ in 0..HOUR {
            simulated.now += Duration::from_secs(1);
            let quiet = simulated.ejected(ONE_EACH, Classification::Status, |_, _| 0.01);
            assert_eq!(quiet, None, "with seed {seed}");
        }
    }
}
