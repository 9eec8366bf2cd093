//! Least request: of two endpoints drawn at random, the one with fewer calls in flight for its
//! weight.
//!
//! Envoy's `LEAST_REQUEST` and gRPC's A48 with two choices, except for weights: Envoy leaves the
//! two choices and turns to a weighted rotation as soon as weights differ. Here the first of the
//! two is drawn by weight and calls in flight are divided by weight, so that shares follow the
//! weights when there is little to do and evade a slow or loaded endpoint when there is much. (To
//! compare `in_flight + 1` over weight instead would leave an idle endpoint of small weight without
//! any calls.)
//!
//! Looks only at the calls of this client. Weights range from 1 to 65535.

use std::sync::Arc;

use super::{Balancer, Context, Picker, two_choices::Pairs};
use crate::endpoint::Endpoint;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastRequest;

impl Balancer for LeastRequest {
    fn picker(&self, candidates: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        Box::new(Ready(Pairs::of(candidates)))
    }
}

struct Ready(Pairs);

impl Picker for Ready {
    fn pick(&self, candidates: &[Arc<Endpoint>], context: &Context) -> usize {
        let (first, second) = self.0.draw(candidates.len(), context);
        let load =
            |index: usize| f64::from(self.0.stats(index).in_flight()) / self.0.relative(index);
        if load(second) < load(first) {
            second
        } else {
            first
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{context, endpoints, spread, weighted};

    #[test]
    fn takes_all_about_as_often_without_load() {
        let set = endpoints(5);
        for count in spread(&*LeastRequest.picker(&set), &set, 10_000) {
            assert!((1_850..2_150).contains(&count), "{count} of 10000");
        }
    }

    #[test]
    fn follows_the_weights_without_load() {
        let set = weighted(&[1, 2, 7]);
        let counts = spread(&*LeastRequest.picker(&set), &set, 10_000);
        for (count, expected) in counts.iter().zip([1_000, 2_000, 7_000]) {
            assert!(count.abs_diff(expected) < 200, "{counts:?}");
        }
    }

    #[test]
    fn evades_the_one_with_more_in_flight() {
        let set = endpoints(2);
        set[0].stats().begin();
        assert_eq!(
            spread(&*LeastRequest.picker(&set), &set, 1_000),
            [0, 1_000],
            "of two, both are always compared"
        );
        set[0].stats().end();
        set[1].stats().begin();
        assert_eq!(spread(&*LeastRequest.picker(&set), &set, 1_000), [1_000, 0]);
    }

    /// Calls that never end: the load must settle at the weights.
    #[test]
    fn fills_all_evenly_for_their_weight() {
        for weights in [vec![1; 10], vec![1, 1, 2, 4, 8]] {
            let set = weighted(&weights);
            let picker = LeastRequest.picker(&set);
            let mut rng = fastrand::Rng::with_seed(3);
            let per_weight = 100;
            for _ in 0..per_weight * weights.iter().sum::<u32>() {
                let index = picker.pick(&set, &context(&mut rng));
                set[index].stats().begin();
            }
            for (endpoint, weight) in set.iter().zip(&weights) {
                let load = endpoint.stats().in_flight() / weight;
                assert!(load.abs_diff(per_weight) <= 5, "{load} at weight {weight}");
            }
        }
    }
}
