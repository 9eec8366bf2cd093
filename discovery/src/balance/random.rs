//! Random: any endpoint, each as likely as the other.

use std::sync::Arc;

use super::{Balancer, Context, Half, Picker};
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
    fn takes_all_about_as_often() {
        let set = endpoints(5);
        for count in spread(&*Random.picker(&set), &set, 10_000) {
            assert!((1_850..2_150).contains(&count), "{count} of 10000");
        }
    }
}
