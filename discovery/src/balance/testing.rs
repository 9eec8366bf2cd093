//! Helpers of the policies' tests.

use std::sync::Arc;

use super::{balancer::Picker, context::Context};
use crate::{clock, endpoint::Endpoint, instance::Instance};

/// Endpoints of weight 1.
pub(crate) fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
    weighted(&vec![1; usize::from(count)])
}

/// Endpoints of these weights.
pub(crate) fn weighted(weights: &[u32]) -> Vec<Arc<Endpoint>> {
    (1..)
        .zip(weights)
        .map(|(port, weight)| {
            let instance = Instance::new("127.0.0.1", port).unwrap();
            Arc::new(Endpoint::new(instance.with_weight(*weight)))
        })
        .collect()
}

/// The context of a first attempt without a key.
pub(crate) fn context(rng: &mut fastrand::Rng) -> Context {
    Context::new(clock::now(), rng.u64(..))
}

/// The number of picks of each endpoint in `picks` picks with a seeded generator.
pub(crate) fn spread(picker: &dyn Picker, set: &[Arc<Endpoint>], picks: usize) -> Vec<usize> {
    let mut rng = fastrand::Rng::with_seed(42);
    let mut counts = vec![0; set.len()];
    for _ in 0..picks {
        counts[picker.pick(set, &context(&mut rng)) % set.len()] += 1;
    }
    counts
}
