//! Least request: of two endpoints drawn at random, the one with fewer calls in flight for its
//! weight.
//!
//! This is Envoy's `LEAST_REQUEST` and gRFC A48 with two choices, except for weights: Envoy uses a
//! weighted rotation as soon as weights differ. Here the first of the two endpoints is drawn by
//! weight, and calls in flight are divided by the weight. The shares follow the weights under low
//! load, and a slow or loaded endpoint gets fewer calls under high load. (A comparison of
//! `in_flight + 1` over weight would give no calls to an idle endpoint of small weight.)
//!
//! Only the calls of this client count. Weights range from 1 to 65535.

use std::sync::Arc;

use super::{
    balancer::{Balancer, Picker},
    context::Context,
    two_choices::Pairs,
};
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
    fn picks_all_about_equally_often_without_load() {
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
    fn avoids_the_endpoint_with_more_calls_in_flight() {
        let set = endpoints(2);
        set[0].stats().begin();
        assert_eq!(
            spread(&*LeastRequest.picker(&set), &set, 1_000),
            [0, 1_000],
            "a pick from two endpoints compares both"
        );
        set[0].stats().end();
        set[1].stats().begin();
        assert_eq!(spread(&*LeastRequest.picker(&set), &set, 1_000), [1_000, 0]);
    }

    /// The calls do not end, so the load must follow the weights.
    #[test]
    fn loads_all_in_proportion_to_their_weights() {
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
