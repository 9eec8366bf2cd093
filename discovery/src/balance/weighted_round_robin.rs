//! Weighted round robin: each endpoint in turn, in proportion to its weight.
//!
//! Weights follow the load that servers report, with the feature `orca` (gRFC A58; see the crate's module
//! `orca`). Where nothing is reported, they are the registry's (Consul's `Weights`). They range from 1
//! to 65535; others are clamped.
//! The sum of the weights, divided by their greatest common divisor, is the length of a cycle. As many
//! consecutive picks take each endpoint in exact proportion to its weight, from any number of
//! threads (of one thread in a set of more than 1 024 endpoints, as in
//! [round robin](super::round_robin)). With equal weights this is round robin.
//!
//! A cycle is a ring of slots. Each endpoint owns as many adjacent slots as its weight. Each pick
//! advances by the same stride, which is near the golden section of the cycle and coprime to its
//! length. So every slot has one turn per cycle, and the turns of one endpoint are spread over the
//! cycle nearly as evenly as possible (three-distance theorem, Sós 1957). gRPC's static stride
//! scheduler (gRFC A58) has the same shares, but skips light endpoints one by one. Here the cost of a
//! pick does not depend on the weights.
//!
//! Retries do not advance the rotation, as in [round robin](super::round_robin).

use std::sync::Arc;

use super::{
    balancer::{Balancer, Picker},
    context::Context,
    reported::weights,
    rotation::{Modulus, Rotation, SetTurns},
};
use crate::endpoint::Endpoint;

/// Maximum length of a cycle, so that the product of two slots fits in 64 bits. The weights of a longer
/// cycle are rounded: only sets of more than 65 000 endpoints of the greatest weight have one.
const LONGEST_CYCLE: u64 = u32::MAX as u64;
/// Number of strides tried on each side of the golden section.
const STRIDES: u64 = 64;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct WeightedRoundRobin {
    rotation: Rotation,
}

impl WeightedRoundRobin {
    /// A rotation that starts at the turn `first`, modulo the length of the cycle.
    #[must_use]
    pub fn starting_at(first: u64) -> Self {
        Self {
            rotation: Rotation::starting_at(first),
        }
    }
}

impl Balancer for WeightedRoundRobin {
    fn picker(&self, candidates: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        Box::new(Ready {
            turns: self.rotation.of(candidates.len()),
            cycle: Cycle::new(weights(candidates)),
        })
    }
}

struct Ready {
    turns: SetTurns,
    cycle: Cycle,
}

impl Picker for Ready {
    fn pick(&self, _candidates: &[Arc<Endpoint>], context: &Context) -> usize {
        let cycle = &self.cycle;
        if context.attempt > 0 {
            return cycle.owner(((context.random >> 32) * cycle.length.divisor()) >> 32);
        }
        let turn = self.turns.turn(cycle.length);
        cycle.owner(cycle.length.of(turn * cycle.stride))
    }
}

/// The owner of each slot, and the order of the slots.
struct Cycle {
    length: Modulus,
    stride: u64,
    /// The end of each endpoint's slots.
    ends: Vec<u32>,
    /// The owner of the first slot of each part of the cycle. The size of a part is a power of two,
    /// and there are at least as many parts as endpoints. The owner of a slot is at most one step
    /// away on average.
    guide: Vec<u32>,
    /// Binary logarithm of the size of a part.
    shift: u32,
}

impl Cycle {
    fn new(mut weights: Vec<u32>) -> Self {
        let sum = |weights: &[u32]| weights.iter().copied().map(u64::from).sum::<u64>();
        while sum(&weights) > LONGEST_CYCLE {
            for weight in &mut weights {
                *weight = (*weight / 2).max(1);
            }
        }
        let common = weights
            .iter()
            .fold(0, |divisor, weight| euclid(divisor, u64::from(*weight)).0)
            .max(1);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a divisor of 32-bit weights"
        )]
        let common = common as u32;
        let ends: Vec<u32> = weights
            .iter()
            .scan(0, |end, weight| {
                *end += *weight / common;
                Some(*end)
            })
            .collect();
        // A picker is made for an empty set too, but not used.
        let length = u64::from(ends.last().copied().unwrap_or(1));
        let count = ends.len() as u64;
        let shift = (length / count.max(1)).max(1).ilog2();
        let guide = (0..=(length - 1) >> shift)
            .map(|part| {
                let owner = ends.partition_point(|end| u64::from(*end) <= part << shift);
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "a cycle has fewer than 2^32 slots"
                )]
                let owner = owner as u32;
                owner
            })
            .collect();
        Self {
            length: Modulus::new(length),
            stride: if length == count { 1 } else { stride(length) },
            ends,
            guide,
            shift,
        }
    }

    fn owner(&self, slot: u64) -> usize {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "below the length of the guide"
        )]
        let part = (slot >> self.shift) as usize;
        let mut owner = self.guide[part] as usize;
        while u64::from(self.ends[owner]) <= slot {
            owner += 1;
        }
        owner
    }
}

/// The stride near the golden section of `length` that spreads turns most evenly: the one whose
/// largest quotient in Euclid's algorithm is smallest, among those that visit every slot.
fn stride(length: u64) -> u64 {
    // 0.618 of the length, rounded.
    let golden = (length * 1_000).div_ceil(1_618);
    (0..STRIDES)
        .flat_map(|step| [golden.saturating_add(step), golden.saturating_sub(step)])
        .filter(|stride| (1..length).contains(stride))
        .map(|stride| (euclid(length, stride), stride))
        .filter(|((divisor, _), _)| *divisor == 1)
        .min_by_key(|((_, quotient), _)| *quotient)
        .map_or(1, |(_, stride)| stride)
}

/// The greatest common divisor, and the largest quotient in Euclid's algorithm.
fn euclid(mut a: u64, mut b: u64) -> (u64, u64) {
    let mut quotient = 0;
    while b > 0 {
        quotient = quotient.max(a / b);
        (a, b) = (b, a % b);
    }
    (a, quotient)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::testing::{context, endpoints, spread, weighted};

    fn sequence(weights: &[u32], picks: usize) -> Vec<usize> {
        let set = weighted(weights);
        let picker = WeightedRoundRobin::default().picker(&set);
        let mut rng = fastrand::Rng::with_seed(1);
        (0..picks)
            .map(|_| picker.pick(&set, &context(&mut rng)))
            .collect()
    }

    #[test]
    fn equal_weights_give_round_robin() {
        assert_eq!(sequence(&[5, 5, 5], 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn spreads_the_turns_of_a_heavy_endpoint_over_the_cycle() {
        assert_eq!(sequence(&[2, 1], 6), [0, 1, 0, 0, 1, 0]);
        let picks = sequence(&[50, 10, 10], 14);
        let light: Vec<_> = (0..14).filter(|turn| picks[*turn] > 0).collect();
        for pair in light.windows(2) {
            assert!((2..=5).contains(&(pair[1] - pair[0])), "{picks:?}");
        }
    }

    #[test]
    fn is_exact_from_many_threads_across_a_change_of_the_set() {
        let balancer = WeightedRoundRobin::starting_at(u64::MAX / 2);
        spread(&*balancer.picker(&endpoints(3)), &endpoints(3), 2);
        let set = weighted(&[1, 2, 3]);
        let picker = balancer.picker(&set);
        let counts = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| spread(&*picker, &set, 1_500)))
                .collect();
            threads.into_iter().fold(vec![0; 3], |sum, thread| {
                let counts = thread.join().unwrap();
                sum.iter().zip(counts).map(|(a, b)| a + b).collect()
            })
        });
        assert_eq!(counts, [1_000, 2_000, 3_000]);
    }

    #[test]
    fn a_retry_is_random_by_weight_and_does_not_advance_the_rotation() {
        let set = weighted(&[1, 3]);
        let picker = WeightedRoundRobin::default().picker(&set);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut counts = [0_u32; 2];
        for _ in 0..4_000 {
            let retry = context(&mut rng).with_attempt(1);
            counts[picker.pick(&set, &retry)] += 1;
        }
        assert!((900..1_100).contains(&counts[0]), "{counts:?}");
        let firsts: Vec<_> = (0..4)
            .map(|_| picker.pick(&set, &context(&mut rng)))
            .collect();
        assert_eq!(firsts.iter().filter(|index| **index == 0).count(), 1);
    }

    #[test]
    fn weights_beyond_the_longest_cycle_keep_their_proportions() {
        let mut weights = vec![65_535; 70_000];
        weights[0] = 1;
        let cycle = Cycle::new(weights);
        assert!(cycle.length.divisor() <= LONGEST_CYCLE);
        assert_eq!(cycle.ends[2] - cycle.ends[1], 32_767);
    }

    proptest! {
        /// A cycle that starts at any turn gives each endpoint its weight. The distance between two
        /// turns of an endpoint is at most four times the average.
        #[test]
        fn shares_are_exact_and_turns_are_spread_evenly(
            weights in prop::collection::vec(1_u32..=100, 1..60),
            start in 0_usize..1_000,
        ) {
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            let length = usize::try_from(total).unwrap();
            let picks = sequence(&weights, start + 2 * length);
            let mut counts = vec![0; weights.len()];
            for index in &picks[start..start + length] {
                counts[*index] += 1;
            }
            prop_assert_eq!(&counts, &weights);
            let mut last = vec![None; weights.len()];
            for (turn, index) in picks.iter().enumerate() {
                if let Some(last) = last[*index].replace(turn) {
                    let mean = length.div_ceil(usize::try_from(weights[*index]).unwrap());
                    prop_assert!(turn - last <= 4 * mean, "{}, mean {mean}", turn - last);
                }
            }
        }

        /// The guide gives the owner that a linear search gives.
        #[test]
        fn finds_the_owner_of_any_slot(
            weights in prop::collection::vec(1_u32..=65_535, 1..300),
            at in 0.0..1.0_f64,
        ) {
            let cycle = Cycle::new(weights);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let slot = (cycle.length.divisor() as f64 * at) as u64;
            let expected = cycle.ends.iter().position(|end| u64::from(*end) > slot).unwrap();
            prop_assert_eq!(cycle.owner(slot), expected);
            prop_assert_eq!(euclid(cycle.length.divisor(), cycle.stride).0, 1);
        }
    }
}
