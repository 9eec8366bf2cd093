//! The one trial of a probation, in every order in which calls and reviews can interleave.

use std::sync::atomic::Ordering;

use loom::{
    sync::{Arc, atomic::AtomicUsize},
    thread,
};
use tokio::time::Instant;

use super::{ejector::Review, state::Event, *};

/// An instance whose probe passed: the next review puts it on probation.
fn probed(policy: &EjectionPolicy, now: Instant) -> Arc<Health> {
    let health = Arc::new(Health::default());
    health.apply(Event::Outlier(policy), now);
    health.apply(Event::Reviewed, now + policy.max_time);
    health.end_probe(true);
    health
}

fn review(policy: &std::sync::Arc<EjectionPolicy>, health: &Health, now: Instant) {
    let ejector = Ejector::new(std::sync::Arc::clone(policy));
    ejector.bring_back(now, &[health], &mut Review::default());
}

#[test]
fn a_probation_has_one_trial_however_calls_and_reviews_meet() {
    loom::model(|| {
        let (policy, now) = (std::sync::Arc::default(), Instant::now());
        let health = probed(&policy, now);
        let trials = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..2)
            .map(|_| {
                let (health, trials) = (Arc::clone(&health), Arc::clone(&trials));
                thread::spawn(move || {
                    if health.take_trial() {
                        trials.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        review(&policy, &health, now);
        for call in calls {
            call.join().unwrap();
        }
        assert!(health.is_on_probation());
        let taken = trials.load(Ordering::Relaxed);
        let still = usize::from(health.take_trial());
        assert_eq!(taken + still, 1, "{taken} calls had the one trial");
    });
}

#[test]
fn a_trial_that_ends_is_seen_by_a_review_and_leaves_no_other_behind() {
    for (classification, admitted) in [
        (Classification::Success, true),
        (Classification::Transport, false),
    ] {
        loom::model(move || {
            let (policy, now) = (std::sync::Arc::default(), Instant::now());
            let health = probed(&policy, now);
            review(&policy, &health, now);
            let call = {
                let (health, policy) = (Arc::clone(&health), std::sync::Arc::clone(&policy));
                thread::spawn(move || {
                    assert!(health.take_trial());
                    assert!(health.note(classification, true, &policy));
                })
            };
            review(&policy, &health, now);
            call.join().unwrap();
            review(&policy, &health, now);
            assert_eq!(health.is_admitted(), admitted);
            assert_eq!(health.ejected_until().is_some(), !admitted);
            assert!(!health.take_trial());
        });
    }
}

/// A trial that its call returns without a result is there for the next call, whatever a review does
/// meanwhile.
#[test]
fn a_returned_trial_can_be_taken_again() {
    loom::model(|| {
        let (policy, now) = (std::sync::Arc::default(), Instant::now());
        let health = probed(&policy, now);
        review(&policy, &health, now);
        let calls: Vec<_> = (0..2)
            .map(|_| {
                let health = Arc::clone(&health);
                thread::spawn(move || {
                    if health.take_trial() {
                        health.return_trial();
                    }
                })
            })
            .collect();
        review(&policy, &health, now);
        for call in calls {
            call.join().unwrap();
        }
        assert!(health.take_trial());
        assert!(!health.take_trial());
    });
}
