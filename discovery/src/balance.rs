//! Balancers: which endpoint gets the next attempt.
//!
//! A policy is pure: no I/O, no clock and no randomness of its own; both come in with the
//! [`Context`]. A [`Balancer`] lives as long as the channel and keeps what has to outlast a change
//! of the set (where a rotation stands); for every set it prepares a [`Picker`], which may hold
//! whatever makes picking from that one set quick.
//!
//! Adding a policy takes a file beside `round_robin.rs` and a line in [`Policy`].

pub mod consistent_hash;
pub mod least_request;
pub mod peak_ewma;
pub mod random;
mod rotation;
pub mod round_robin;
mod two_choices;
pub mod weighted_round_robin;

use std::{fmt, str::FromStr, sync::Arc};

use tokio::time::Instant;

pub use self::{
    consistent_hash::ConsistentHash, least_request::LeastRequest, peak_ewma::PeakEwma,
    random::Random, round_robin::RoundRobin, weighted_round_robin::WeightedRoundRobin,
};
use crate::{endpoint::Endpoint, hash};

/// A policy, as long-lived as its channel.
pub trait Balancer: Send + Sync + 'static {
    /// Prepares to pick from these endpoints. Called for every change of the set.
    fn picker(&self, candidates: &[Arc<Endpoint>]) -> Box<dyn Picker>;
}

/// A policy, ready for one set.
pub trait Picker: Send + Sync + 'static {
    /// The index of the endpoint to take. `candidates` is the slice the picker was made for; an
    /// index beyond its end counts from its start again. Never called for an empty one.
    ///
    /// Called once per attempt, from many threads at once: it must not lock or allocate.
    fn pick(&self, candidates: &[Arc<Endpoint>], context: &Context) -> usize;
}

/// What a pick may depend on besides the endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The time of the pick.
    pub now: Instant,
    /// 64 random bits.
    pub random: u64,
    /// The hash of the request's key, for policies that keep a key with an instance.
    pub key: Option<u64>,
    /// Attempts this call has behind it; 0 for the first.
    pub attempt: u32,
}

impl Context {
    /// More random bits, where [`random`](Self::random) does not suffice: a word of its own for
    /// every `nth`, independent of the others. The channel's own use of them begins at 8.
    #[must_use]
    pub fn further(&self, nth: u64) -> u64 {
        hash::nth(self.random, nth)
    }

    /// A number below `bound`, from the upper or the lower half of the random bits (Lemire's
    /// multiplication instead of a division); the two halves are independent. 0 for a `bound` of 0.
    /// No number is more likely than another by more than `bound` parts in 2^32.
    pub(crate) fn below(&self, bound: usize, half: Half) -> usize {
        let bits = match half {
            Half::Lower => self.random & 0xffff_ffff,
            Half::Upper => self.random >> 32,
        };
        // Below `bound`, and sets of more than 2^32 endpoints do not occur.
        #[allow(clippy::cast_possible_truncation)]
        let index = ((bits * bound as u64) >> 32) as usize;
        index
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Half {
    Lower,
    Upper,
}

/// The weight a policy gives an endpoint: the registry's, brought into the range that policies
/// reckon with.
fn weight(endpoint: &Endpoint) -> u32 {
    endpoint.instance().weight.clamp(1, 65_535)
}

macro_rules! policies {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $make:expr,)*) => {
        /// The policies that can be chosen by name.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Policy { $($(#[$doc])* $name,)* }

        impl Policy {
            /// Their names, as flags write them.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];

            /// The policy's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// A balancer of this policy, with its defaults.
            #[must_use]
            pub fn balancer(self) -> Arc<dyn Balancer> {
                match self { $(Self::$name => Arc::new($make),)* }
            }
        }

        impl FromStr for Policy {
            type Err = UnknownPolicy;

            fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
                match text {
                    $($text => Ok(Self::$name),)*
                    _ => Err(UnknownPolicy(text.to_owned())),
                }
            }
        }
    };
}

policies! {
    /// One after another.
    #[default]
    RoundRobin = "round-robin" => RoundRobin::starting_at(fastrand::usize(..)),
    /// Any, each as likely as the other.
    Random = "random" => Random,
    /// The one with fewer calls in flight, of two drawn at random.
    LeastRequest = "least-request" => LeastRequest,
    /// The one that is likely to answer sooner, of two drawn at random.
    PeakEwma = "peak-ewma" => PeakEwma,
    /// One after another, each as often as its weight says.
    WeightedRoundRobin = "weighted-round-robin" => WeightedRoundRobin::starting_at(fastrand::u64(..)),
    /// The same key to the same endpoint; calls without a key anywhere.
    ConsistentHash = "consistent-hash" => ConsistentHash::default(),
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no balancer; expected one of {names}", names = Policy::NAMES.join(", "))]
pub struct UnknownPolicy(String);

#[cfg(test)]
pub(crate) mod testing {
    //! What every policy's tests need.

    use super::*;
    use crate::instance::Instance;

    pub(crate) fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
        (1..=count)
            .map(|port| Arc::new(Endpoint::new(Instance::new("127.0.0.1", port).unwrap())))
            .collect()
    }

    /// Endpoints of these weights.
    pub(crate) fn weighted(weights: &[u32]) -> Vec<Arc<Endpoint>> {
        (1..)
            .zip(weights)
            .map(|(port, weight)| {
                let mut instance = Instance::new("127.0.0.1", port).unwrap();
                instance.weight = *weight;
                Arc::new(Endpoint::new(instance))
            })
            .collect()
    }

    /// A first attempt without a key, now.
    pub(crate) fn context(rng: &mut fastrand::Rng) -> Context {
        Context {
            now: Instant::now(),
            random: rng.u64(..),
            key: None,
            attempt: 0,
        }
    }

    /// How often each endpoint is picked in `picks` picks with a seeded generator.
    pub(crate) fn spread(picker: &dyn Picker, set: &[Arc<Endpoint>], picks: usize) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(42);
        let mut counts = vec![0; set.len()];
        for _ in 0..picks {
            counts[picker.pick(set, &context(&mut rng)) % set.len()] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn policies_go_by_name() {
        for name in Policy::NAMES {
            assert_eq!(name.parse::<Policy>().unwrap().to_string(), *name);
        }
        let error = "best".parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains("round-robin"), "{error}");
    }
    proptest! {
        /// Whatever the set and the load: every policy names one of the candidates.
        #[test]
        fn every_policy_stays_within_the_set(
            weights in prop::collection::vec(0_u32..=70_000, 1..300),
            loaded in prop::collection::vec((any::<usize>(), 0_u64..10_000), 0..300),
            seed: u64,
        ) {
            let set = testing::weighted(&weights);
            for (index, millis) in loaded {
                let stats = set[index % set.len()].stats();
                stats.begin();
                let latency = std::time::Duration::from_millis(millis);
                stats.observe(Instant::now(), latency, millis % 7 == 0);
            }
            let mut rng = fastrand::Rng::with_seed(seed);
            for name in Policy::NAMES {
                let balancer = name.parse::<Policy>().unwrap().balancer();
                // A set that is empty for a while must not trip a policy.
                balancer.picker(&[]);
                let picker = balancer.picker(&set);
                for attempt in 0..20 {
                    let mut context = testing::context(&mut rng);
                    context.attempt = attempt / 4;
                    context.key = rng.bool().then(|| rng.u64(..));
                    prop_assert!(picker.pick(&set, &context) < set.len(), "{name}");
                }
            }
        }
    }
}
