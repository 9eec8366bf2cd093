//! Reviews of whole sets, on a clock that only the test moves.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{ejector::Review, *};

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    set: Vec<Health>,
    ejector: Ejector,
    policy: Arc<EjectionPolicy>,
    now: Instant,
}

impl Bench {
    fn new(count: usize) -> Self {
        Self::with(EjectionPolicy::default(), count)
    }

    fn with(policy: EjectionPolicy, count: usize) -> Self {
        let policy = Arc::new(policy);
        Self {
            set: (0..count).map(|_| Health::default()).collect(),
            ejector: Ejector::new(Arc::clone(&policy)),
            policy,
            now: Instant::now(),
        }
    }

    fn note(&self, index: usize, classification: Classification, times: u32) {
        for _ in 0..times {
            self.set[index].note(classification, false, &self.policy);
        }
    }

    fn after(&mut self, passed: Duration) -> Review {
        self.now += passed;
        let set: Vec<_> = self.set.iter().collect();
        self.ejector.review(self.now, &set)
    }

    fn until(&self, index: usize) -> Instant {
        self.set[index].ejected_until().unwrap()
    }

    fn ejected(&mut self, passed: Duration) -> Vec<usize> {
        let review = self.after(passed);
        review.ejected.iter().map(|(index, ..)| *index).collect()
    }
}

#[test]
fn failures_in_a_row_eject_even_one_of_two() {
    for classification in [Classification::Transport, Classification::Status] {
        let mut bench = Bench::new(2);
        bench.note(0, Classification::Success, 20);
        bench.note(1, classification, 2);
        assert!(bench.ejected(Duration::ZERO).is_empty());
        bench.note(1, Classification::Success, 1);
        bench.note(1, classification, 2);
        assert!(
            bench.ejected(Duration::ZERO).is_empty(),
            "the run was broken"
        );
        bench.note(1, classification, 3);
        assert_eq!(bench.ejected(Duration::ZERO), [1], "{classification:?}");
    }
}

#[test]
fn never_ejects_all_nor_more_than_the_share() {
    for (count, most) in [(1, 0), (2, 1), (3, 1), (5, 2), (10, 5)] {
        let mut bench = Bench::new(count);
        for index in 0..count {
            bench.note(index, Classification::Success, 100);
            bench.note(index, Classification::Transport, 9);
        }
        assert_eq!(bench.ejected(Duration::ZERO).len(), most, "of {count}");
    }
}

#[test]
fn when_all_fail_alike_none_is_ejected() {
    let mut bench = Bench::new(5);
    for index in 0..5 {
        bench.note(index, Classification::Status, 50);
    }
    assert!(bench.ejected(Duration::ZERO).is_empty());
    assert!(bench.ejected(SECOND).is_empty());
}

#[test]
fn a_share_that_stands_out_ejects() {
    let mut bench = Bench::new(3);
    bench.after(Duration::ZERO);
    for _ in 0..10 {
        for index in 0..3 {
            bench.note(index, Classification::Success, 2);
        }
        bench.note(2, Classification::Status, 1);
    }
    assert_eq!(bench.ejected(SECOND), [2]);
}

#[test]
fn a_share_that_all_have_does_not() {
    let mut bench = Bench::new(3);
    bench.after(Duration::ZERO);
    for index in 0..3 {
        for _ in 0..10 {
            bench.note(index, Classification::Success, 2);
            bench.note(index, Classification::Status, 1);
        }
    }
    assert!(bench.ejected(SECOND).is_empty());
}

#[test]
fn shedding_load_counts_toward_the_share_only() {
    let mut bench = Bench::new(2);
    bench.note(0, Classification::Success, 100);
    bench.note(1, Classification::Overloaded, 100);
    assert!(bench.ejected(Duration::ZERO).is_empty());
    assert_eq!(bench.ejected(SECOND), [1]);
}

#[test]
fn returns_by_a_probe_and_one_good_call_and_starts_slowly() {
    let mut bench = Bench::new(2);
    bench.note(0, Classification::Success, 9);
    bench.note(1, Classification::Transport, 3);
    assert_eq!(bench.ejected(Duration::ZERO), [1]);
    assert!(bench.after(2 * SECOND).probe.is_empty());
    assert_eq!(bench.after(SECOND).probe, [1]);
    assert!(!bench.set[1].take_trial(), "the probe is still out");
    bench.set[1].end_probe(true);
    bench.after(Duration::ZERO);
    assert!(bench.set[1].is_on_probation());
    assert!(bench.set[1].take_trial());
    assert!(!bench.set[1].take_trial(), "one call at a time");
    bench.set[1].note(Classification::Success, true, &bench.policy);
    assert_eq!(bench.after(Duration::ZERO).admitted, [1]);
    let share = |passed| bench.set[1].slow_start_share(bench.now + passed, &bench.policy);
    assert!((share(Duration::ZERO) - 0.1).abs() < 1e-9);
    assert!((share(bench.policy.slow_start / 2) - 0.5).abs() < 1e-9);
    assert!((share(bench.policy.slow_start) - 1.0).abs() < 1e-9);
}

#[test]
fn every_repeat_takes_longer_up_to_the_ceiling_and_good_times_forgive() {
    let mut bench = Bench::new(2);
    let mut times = Vec::new();
    bench.note(0, Classification::Success, 9);
    bench.note(1, Classification::Transport, 3);
    let review = bench.after(Duration::ZERO);
    times.push(review.ejected[0].2);
    for _ in 0..30 {
        let until = bench.until(1);
        let wait = until - bench.now;
        assert_eq!(bench.after(wait).probe, [1]);
        bench.set[1].end_probe(false);
        bench.after(Duration::ZERO);
        times.push(bench.until(1) - bench.now);
    }
    assert_eq!(times[..3], [3 * SECOND, 6 * SECOND, 9 * SECOND]);
    assert_eq!(times.last(), Some(&bench.policy.max_time));
    let until = bench.until(1);
    bench.after(until - bench.now);
    bench.set[1].end_probe(true);
    bench.after(Duration::ZERO);
    assert!(bench.set[1].take_trial());
    bench.set[1].note(Classification::Success, true, &bench.policy);
    bench.after(Duration::ZERO);
    let times = bench.set[1].lock().machine.ejections();
    for _ in 0..25 {
        bench.after(SECOND);
    }
    assert_eq!(bench.set[1].lock().machine.ejections(), times - 2);
}

#[test]
fn what_ends_after_the_ejection_says_nothing_more() {
    let mut bench = Bench::new(2);
    bench.note(0, Classification::Success, 9);
    bench.note(1, Classification::Transport, 3);
    bench.after(Duration::ZERO);
    bench.note(1, Classification::Transport, 50);
    bench.after(3 * SECOND);
    bench.set[1].end_probe(true);
    bench.after(Duration::ZERO);
    assert!(bench.set[1].is_on_probation());
}

#[test]
fn a_new_connection_is_probed_at_once() {
    let mut bench = Bench::new(2);
    bench.note(0, Classification::Success, 9);
    bench.note(1, Classification::Transport, 3);
    assert_eq!(bench.ejected(Duration::ZERO), [1]);
    bench.set[1].connected(bench.now);
    assert!(bench.after(SECOND).probe.is_empty(), "connected before");
    bench.set[1].connected(bench.now);
    assert_eq!(bench.after(Duration::ZERO).probe, [1]);
    bench.set[1].postpone_probe(bench.now, bench.now + SECOND);
    assert!(bench.after(Duration::ZERO).probe.is_empty());
    assert_eq!(bench.after(SECOND).probe, [1]);
}

#[test]
fn a_rate_far_below_the_mean_ejects_in_a_larger_set() {
    let policy = EjectionPolicy::default().with_failing_share(1.0);
    let mut bench = Bench::with(policy, 6);
    bench.after(Duration::ZERO);
    for index in 0..6 {
        for _ in 0..10 {
            bench.note(index, Classification::Success, 10);
            bench.note(index, Classification::Status, u32::from(index == 3));
        }
    }
    assert_eq!(bench.ejected(SECOND), [3]);
}

#[test]
fn shares_and_rates_are_compared_among_enough_instances_with_enough_calls_only() {
    let shares = |instances| {
        EjectionPolicy::default()
            .with_consecutive_status(0)
            .with_success_rate_deviations(0.0)
            .with_failing_share_instances(instances)
    };
    let rates = |instances, calls| {
        EjectionPolicy::default()
            .with_consecutive_status(0)
            .with_failing_share(1.0)
            .with_success_rate_deviations(1.0)
            .with_success_rate_instances(instances)
            .with_success_rate_calls(calls)
    };
    for (policy, expected) in [
        (shares(0), &[2][..]),
        (shares(3), &[2]),
        (shares(4), &[]),
        (rates(3, 40), &[2]),
        (rates(4, 40), &[]),
        (rates(3, 41), &[]),
    ] {
        let mut bench = Bench::with(policy.clone(), 3);
        bench.after(Duration::ZERO);
        for index in 0..2 {
            bench.note(index, Classification::Success, 40);
        }
        bench.note(2, Classification::Success, 20);
        bench.note(2, Classification::Status, 20);
        assert_eq!(bench.ejected(SECOND), expected, "{policy:?}");
    }
}

#[test]
fn instances_that_are_ejected_return_when_ejection_is_turned_off() {
    let mut bench = Bench::new(3);
    bench.note(0, Classification::Success, 20);
    bench.note(1, Classification::Transport, 3);
    assert_eq!(bench.ejected(SECOND), [1]);
    let off = EjectionPolicy::default().with_enabled(false);
    bench.ejector.set_policy(Arc::new(off));
    assert_eq!(bench.after(SECOND).admitted, [1]);
    assert!(bench.set[1].is_admitted());
    assert_eq!(bench.after(SECOND).admitted, [0; 0]);
}
