//! Random: a random endpoint, each with the same probability.

use std::sync::Arc;

use super::{
    balancer::{Balancer, Picker},
    context::{Context, Half},
};
use crate::endpoint::Endpoint;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl Balancer for Random {
    fn picker(&self, _candidates: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        Box::new(*self)
    }
}

impl Picker for Random {
    fn pick(&self, candidates: &[Arc<Endpoint>], context: &Context) -> usize {
        context.below(candidates.len(), Half::Lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{endpoints, spread};

    #[test]
    fn picks_all_about_equally_often() {
        let set = endpoints(5);
        for count in spread(&*Random.picker(&set), &set, 10_000) {
            assert!((1_850..2_150).contains(&count), "{count} of 10000");
        }
    }
}
