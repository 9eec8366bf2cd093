//! Consistent hash: all calls with the same key go to the same endpoint, from every process.
//!
//! The key is the [`HashKey`](crate::HashKey) in the request's extensions. A call without a key goes
//! to a random endpoint. Endpoints have points on a ring, placed by their instances' IDs (Karger et
//! al. 1997). The keys of an endpoint that is removed or ejected are spread over the others. An
//! endpoint that is added takes some keys from each of the others. No other key moves.
//!
//! A popular key must not overload its endpoint. An endpoint with more than 1.25 times the average of
//! calls in flight for its weight is skipped, and the next on the ring is taken (Mirrokni, Thorup,
//! Zadimoghaddam 2016; `HAProxy`'s manual recommends 1.25 to 2). Fewer than 8 calls in flight count
//! as no load: with one or two calls in flight the bound would be one call per endpoint and would
//! move keys without need. The average is taken over a sample of 16 endpoints, so that the cost of a
//! pick does not depend on the set's size.
//!
//! The second attempt of a call goes to the next endpoint on the ring, which serves the key if the
//! first endpoint is removed. Further attempts continue along the ring.
//!
//! The heaviest endpoint has 128 points, and the others fewer in proportion to their weights (1 to
//! 65535), at least one. With equal weights the share of nearly all endpoints is within a quarter of
//! the average. A ring takes 1 KiB per endpoint, and 1 MiB more above 1 024 endpoints. The previous
//! ring is kept for the next change. A change costs one pass over the ring.

mod ring;

use std::sync::{Arc, Mutex, PoisonError};

use self::ring::{Member, Ring};
use super::{
    balancer::{Balancer, Picker},
    context::{Context, Half},
    weight::weight,
};
use crate::{
    endpoint::{Endpoint, Stats},
    hash,
};

/// Number of points of the heaviest endpoint.
const POINTS: u32 = 128;
/// Maximum load of an endpoint, as a multiple of the average.
const BOUND: f64 = 1.25;
/// Fewer calls in flight count as no load.
const NO_LOAD: u32 = 8;
/// Number of endpoints from which the average load is taken.
const SAMPLE: usize = 16;
/// Maximum number of endpoints considered for one key.
const CONSIDERED: usize = 8;
/// Maximum number of points searched for these endpoints.
const WALK: usize = 1_024;
/// Number of rings kept for the next change. Zone preference has two sets at a time.
const KEPT: usize = 2;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct ConsistentHash {
    rings: Mutex<Vec<Arc<Ring>>>,
}

impl Balancer for ConsistentHash {
    fn picker(&self, candidates: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        let members = members(candidates);
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let same = rings.iter().position(|ring| ring.members() == members);
        let ring = if let Some(index) = same {
            rings.remove(index)
        } else {
            // The ring with the most members in common has the cheapest change.
            let nearest = rings.iter().max_by_key(|ring| ring.in_common(&members));
            Arc::new(match nearest {
                Some(nearest) => nearest.change(members),
                None => Ring::default().change(members),
            })
        };
        rings.insert(0, Arc::clone(&ring));
        rings.truncate(KEPT);
        Box::new(Ready {
            ring,
            stats: candidates.iter().map(|e| e.shared_stats()).collect(),
        })
    }
}

fn members(candidates: &[Arc<Endpoint>]) -> Vec<Member> {
    let heaviest = candidates.iter().map(|e| weight(e)).max().unwrap_or(1);
    candidates
        .iter()
        .map(|endpoint| Member {
            id: hash::bytes(endpoint.instance().id.as_bytes()),
            points: (POINTS * weight(endpoint)).div_ceil(heaviest),
        })
        .collect()
}

struct Ready {
    ring: Arc<Ring>,
    /// The statistics of the candidates, kept here to save an indirection through the endpoint.
    stats: Vec<Arc<Stats>>,
}

impl Picker for Ready {
    fn pick(&self, candidates: &[Arc<Endpoint>], context: &Context) -> usize {
        let key = context.key.unwrap_or(context.random);
        match self.ring.first(key) {
            Some(owner) if context.attempt == 0 && self.stats[owner].in_flight() < NO_LOAD => owner,
            _ => self.walk(key, candidates, context),
        }
    }
}

impl Ready {
    /// The first endpoint on the ring from the key on that is not overloaded.
    fn walk(&self, key: u64, candidates: &[Arc<Endpoint>], context: &Context) -> usize {
        // The endpoints seen so far, in the order of the ring.
        let mut seen = [usize::MAX; CONSIDERED];
        let mut count = 0;
        let mut least: Option<(u32, usize)> = None;
        let mut load = None;
        for owner in self.ring.clockwise(key).take(WALK) {
            if seen[..count].contains(&owner) {
                continue;
            }
            if count == CONSIDERED {
                break;
            }
            seen[count] = owner;
            count += 1;
            if count <= context.attempt as usize {
                continue;
            }
            let in_flight = self.stats[owner].in_flight();
            if in_flight < NO_LOAD {
                return owner;
            }
            let load = *load.get_or_insert_with(|| average(candidates, context));
            let bound = (BOUND * load * f64::from(weight(&candidates[owner]))).ceil();
            if f64::from(in_flight) < bound {
                return owner;
            }
            if least.is_none_or(|(least, _)| in_flight < least) {
                least = Some((in_flight, owner));
            }
        }
        match least {
            Some((_, owner)) => owner,
            // This call has tried nearly all endpoints.
            None => context.below(candidates.len(), Half::Upper),
        }
    }
}

/// Average number of calls in flight per unit of weight, the new call included.
fn average(candidates: &[Arc<Endpoint>], context: &Context) -> f64 {
    let count = candidates.len();
    let first = context.below(count, Half::Lower);
    let stride = (count / SAMPLE).max(1);
    let (calls, weights) = (0..count.min(SAMPLE))
        .map(|step| &candidates[(first + step * stride) % count])
        .fold((1, 0), |(calls, weights), endpoint| {
            let in_flight = u64::from(endpoint.stats().in_flight());
            (calls + in_flight, weights + u64::from(weight(endpoint)))
        });
    #[allow(clippy::cast_precision_loss, reason = "sums of 16 are below 2^52")]
    let average = calls as f64 / weights as f64;
    average
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        HashKey,
        balance::testing::{self, endpoints, spread, weighted},
    };

    fn context(key: u64) -> Context {
        testing::context(&mut fastrand::Rng::with_seed(key)).with_key(key)
    }

    /// The ID of each key's instance.
    fn owners(set: &[Arc<Endpoint>], keys: u64) -> Vec<&str> {
        let picker = ConsistentHash::default().picker(set);
        (0..keys)
            .map(|key| set[picker.pick(set, &context(key))].instance().id.as_str())
            .collect()
    }

    /// Every release must send the same keys to the same instances, so that their caches stay warm.
    #[test]
    fn owners_are_the_same_in_every_release() {
        let set = endpoints(5);
        let picker = ConsistentHash::default().picker(&set);
        let owner = |key: &str| picker.pick(&set, &context(HashKey::of(key.as_bytes()).0));
        let owners: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(owner).into();
        assert_eq!(owners, [1, 0, 1, 1, 3, 4, 0, 1]);
    }

    #[test]
    fn calls_without_a_key_are_spread_over_all() {
        let set = endpoints(5);
        for count in spread(&*ConsistentHash::default().picker(&set), &set, 10_000) {
            assert!((1_400..2_600).contains(&count), "{count} of 10000");
        }
    }

    #[test]
    fn keys_follow_the_weights() {
        let set = weighted(&[1, 1, 8]);
        let mut counts = HashMap::new();
        for owner in owners(&set, 10_000) {
            *counts.entry(owner).or_insert(0) += 1;
        }
        let heavy = counts[set[2].instance().id.as_str()];
        assert!((7_200..8_800).contains(&heavy), "{counts:?}");
    }

    #[test]
    fn a_second_attempt_goes_to_the_owner_of_the_key_without_the_first() {
        let set = endpoints(10);
        let picker = ConsistentHash::default().picker(&set);
        for key in 0..200 {
            let first = picker.pick(&set, &context(key));
            let second = picker.pick(&set, &context(key).with_attempt(1));
            let mut others = set.clone();
            others.remove(first);
            let moved = ConsistentHash::default().picker(&others);
            let owner = moved.pick(&others, &context(key));
            assert!(Arc::ptr_eq(&others[owner], &set[second]));
        }
    }

    #[test]
    fn a_popular_key_does_not_overload_its_endpoint() {
        let set = endpoints(10);
        let picker = ConsistentHash::default().picker(&set);
        let mut rng = fastrand::Rng::with_seed(5);
        let calls = 4_000;
        for call in 0..calls {
            // Nine of ten calls have the same key.
            let key = if call % 10 == 0 { rng.u64(..) } else { 7 };
            let context = testing::context(&mut rng).with_key(key);
            set[picker.pick(&set, &context)].stats().begin();
        }
        let most = set.iter().map(|e| e.stats().in_flight()).max().unwrap();
        assert!(most <= 501, "{most} calls of {calls} on one of ten");
    }

    #[test]
    fn a_few_concurrent_calls_do_not_move_a_key() {
        let set = endpoints(10);
        let picker = ConsistentHash::default().picker(&set);
        let owner = picker.pick(&set, &context(7));
        for _ in 0..NO_LOAD {
            assert_eq!(picker.pick(&set, &context(7)), owner);
            set[owner].stats().begin();
        }
        assert_ne!(picker.pick(&set, &context(7)), owner);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// The removal of an endpoint moves its keys only.
        #[test]
        fn only_the_keys_of_a_removed_endpoint_move(count in 2_u16..300, gone: usize) {
            let set = endpoints(count);
            let mut left = set.clone();
            let gone = left.remove(gone % left.len());
            for (before, after) in owners(&set, 2_000).iter().zip(owners(&left, 2_000)) {
                prop_assert!(*before == after || *before == gone.instance().id);
            }
        }

        /// A ring that was changed step by step equals the ring built in one step.
        #[test]
        fn a_changed_ring_equals_a_new_ring(
            steps in prop::collection::vec(
                prop::collection::vec((0_u16..400, 1_u32..=65_535), 1..60),
                1..6,
            ),
        ) {
            let balancer = ConsistentHash::default();
            for step in steps {
                let mut set = endpoints(400);
                let chosen: HashMap<u16, u32> = step.into_iter().collect();
                let mut index = 0;
                set.retain_mut(|endpoint| {
                    let weight = chosen.get(&index);
                    index += 1;
                    weight.is_some_and(|weight| {
                        let mut instance = (**endpoint.instance()).clone();
                        instance.weight = *weight;
                        *endpoint = Arc::new(Endpoint::new(instance));
                        true
                    })
                });
                let changed = balancer.picker(&set);
                let new = ConsistentHash::default().picker(&set);
                for key in 0..200 {
                    let context = context(key);
                    prop_assert_eq!(changed.pick(&set, &context), new.pick(&set, &context));
                }
            }
        }
    }
}
