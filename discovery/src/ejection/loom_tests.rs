//! A probation's one trial, in every order that calls and reviews can meet in.

use std::sync::atomic::Ordering;

use loom::{
    sync::{Arc, atomic::AtomicUsize},
    thread,
};
use tokio::time::Instant;

use super::{ejector::Review, *};

/// An instance whose probe was answered: the next review puts it on probation.
fn probed() -> Arc<Health> {
    let health = Arc::new(Health::default());
    health.set(EjectionState::Probing);
    health.conclude(true);
    health
}

#[test]
fn a_probation_has_one_trial_however_calls_and_reviews_meet() {
    loom::model(|| {
        let health = probed();
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
        let ejector = Ejector::new(EjectionPolicy::default());
        ejector.bring_back(Instant::now(), &[&health], &mut Review::default());
        for call in calls {
            call.join().unwrap();
        }
        assert_eq!(health.state(), EjectionState::Probation);
        let taken = trials.load(Ordering::Relaxed);
        let still = usize::from(health.take_trial());
        assert_eq!(taken + still, 1, "{taken} calls had the one trial");
    });
}

#[test]
fn a_trial_that_ends_is_seen_by_a_review_and_leaves_no_other_behind() {
    for (classification, state) in [
        (Classification::Success, EjectionState::Admitted),
        (Classification::Transport, EjectionState::Ejected),
    ] {
        loom::model(move || {
            let policy = EjectionPolicy::default();
            let ejector = Ejector::new(policy.clone());
            let health = probed();
            let review = |health: &Health| {
                ejector.bring_back(Instant::now(), &[health], &mut Review::default());
            };
            review(&health);
            let call = {
                let health = Arc::clone(&health);
                thread::spawn(move || {
                    assert!(health.take_trial());
                    assert!(health.note(classification, true, &policy));
                })
            };
            review(&health);
            call.join().unwrap();
            review(&health);
            assert_eq!(health.state(), state);
            assert!(!health.take_trial());
        });
    }
}
