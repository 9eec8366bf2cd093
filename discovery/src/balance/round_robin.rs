//! Round robin: each endpoint in turn.
//!
//! Over an unchanged set of `n` endpoints, any `n` consecutive picks take each endpoint exactly once, from
//! any number of threads. In a set of more than 1 024 endpoints a thread takes 16 turns at a time: the picks
//! of one thread are as exact, those of several threads together nearly.
//! [`Policy::RoundRobin`](super::Policy::RoundRobin) starts at a random endpoint, as gRPC does. Go kit starts
//! every client at the first instance of a sorted list, so that clients that start together overload it.
//!
//! A retry does not advance the rotation and goes to a random endpoint. If it took the next turn, then
//! one faulty instance of two would receive the first attempt of every call, as with Go kit.

use std::sync::Arc;

use super::{
    balancer::{Balancer, Picker},
    context::{Context, Half},
    rotation::{Modulus, Rotation, SetTurns},
};
use crate::endpoint::Endpoint;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct RoundRobin {
    rotation: Rotation,
}

impl RoundRobin {
    /// A rotation that starts at the index `first`, modulo the size of the set.
    #[must_use]
    pub fn starting_at(first: usize) -> Self {
        Self {
            rotation: Rotation::starting_at(first as u64),
        }
    }
}

impl Balancer for RoundRobin {
    fn picker(&self, candidates: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        Box::new(Ready {
            turns: self.rotation.of(candidates.len()),
            cycle: Modulus::new(candidates.len() as u64),
        })
    }
}

struct Ready {
    turns: SetTurns,
    cycle: Modulus,
}

impl Picker for Ready {
    fn pick(&self, candidates: &[Arc<Endpoint>], context: &Context) -> usize {
        if context.attempt > 0 {
            return context.below(candidates.len(), Half::Lower);
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "below the number of endpoints"
        )]
        let index = self.turns.turn(self.cycle) as usize;
        index
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::balance::testing::{endpoints, spread};

    #[test]
    fn picks_each_in_turn() {
        let set = endpoints(3);
        let picker = RoundRobin::starting_at(1).picker(&set);
        let context = Context::new(Instant::now(), 0);
        let picks: Vec<_> = (0..6).map(|_| picker.pick(&set, &context)).collect();
        assert_eq!(picks, [1, 2, 0, 1, 2, 0]);
        assert_eq!(spread(&*picker, &set, 300), [100, 100, 100]);
    }

    #[test]
    fn continues_at_its_position_when_the_set_changes() {
        let balancer = RoundRobin::default();
        let set = endpoints(4);
        spread(&*balancer.picker(&set), &set, 2);
        let counts = spread(&*balancer.picker(&set), &set, 2);
        assert_eq!(counts, [0, 0, 1, 1]);
    }

    #[test]
    fn a_retry_does_not_advance_the_rotation() {
        let set = endpoints(2);
        let picker = RoundRobin::default().picker(&set);
        let first = Context::new(Instant::now(), u64::MAX);
        let retry = first.with_attempt(1);
        let picks = [&first, &retry, &first, &retry].map(|context| picker.pick(&set, context));
        assert_eq!(picks, [0, 1, 1, 1]);
    }

    #[test]
    fn is_exact_from_many_threads() {
        let set = endpoints(5);
        let picker = RoundRobin::starting_at(usize::MAX / 2).picker(&set);
        let counts = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| spread(&*picker, &set, 5_000)))
                .collect();
            threads.into_iter().fold(vec![0; 5], |sum, thread| {
                let counts = thread.join().unwrap();
                sum.iter().zip(counts).map(|(a, b)| a + b).collect()
            })
        });
        assert_eq!(counts, [4_000; 5]);
    }
}
