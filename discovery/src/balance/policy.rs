//! The policies that configurations choose by name.

use std::{fmt, str::FromStr, sync::Arc};

use super::{
    balancer::Balancer, consistent_hash::ConsistentHash, least_request::LeastRequest,
    peak_ewma::PeakEwma, random::Random, round_robin::RoundRobin,
    weighted_round_robin::WeightedRoundRobin,
};

macro_rules! policies {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $make:expr,)*) => {
        /// The policies that can be chosen by name.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Policy { $($(#[$doc])* $name,)* }

        impl Policy {
            /// The names of all policies, as in flags.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];

            /// The policy's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// A balancer of this policy with its default settings.
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
    /// Each endpoint in turn. See [`round_robin`](super::round_robin).
    #[default]
    RoundRobin = "round-robin" => RoundRobin::starting_at(fastrand::usize(..)),
    /// A random endpoint. See [`random`](super::random).
    Random = "random" => Random,
    /// Of two random endpoints, the one with fewer calls in flight. See
    /// [`least_request`](super::least_request).
    LeastRequest = "least-request" => LeastRequest,
    /// Of two random endpoints, the one with the lower expected latency. See
    /// [`peak_ewma`](super::peak_ewma).
    PeakEwma = "peak-ewma" => PeakEwma,
    /// Each endpoint in turn, in proportion to its weight. See
    /// [`weighted_round_robin`](super::weighted_round_robin).
    WeightedRoundRobin = "weighted-round-robin" => WeightedRoundRobin::starting_at(fastrand::u64(..)),
    /// The same endpoint for all calls with the same key, a random one for calls without a key. See
    /// [`consistent_hash`](super::consistent_hash).
    ConsistentHash = "consistent-hash" => ConsistentHash::default(),
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is not the name of a [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown balancer {0:?}: expected one of {names}", names = Policy::NAMES.join(", "))]
pub struct UnknownPolicy(String);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::balance::testing;

    #[test]
    fn policies_parse_from_their_names() {
        for name in Policy::NAMES {
            assert_eq!(name.parse::<Policy>().unwrap().to_string(), *name);
        }
        let error = "best".parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains("round-robin"), "{error}");
    }

    proptest! {
        /// For any set and load, every policy picks one of the candidates.
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
                let latency = Duration::from_millis(millis);
                stats.observe(Instant::now(), latency, millis % 7 == 0);
            }
            let mut rng = fastrand::Rng::with_seed(seed);
            for name in Policy::NAMES {
                let balancer = name.parse::<Policy>().unwrap().balancer();
                // An empty set must not break the state that a balancer keeps.
                balancer.picker(&[]);
                let picker = balancer.picker(&set);
                for attempt in 0..20 {
                    let mut context = testing::context(&mut rng).with_attempt(attempt / 4);
                    context.key = rng.bool().then(|| rng.u64(..));
                    prop_assert!(picker.pick(&set, &context) < set.len(), "{name}");
                }
            }
        }
    }
}
