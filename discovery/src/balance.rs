//! Balancers: which endpoint gets the next attempt.
//!
//! A policy is pure: no I/O, no clock and no randomness of its own; both come in with the
//! [`Context`]. A [`Balancer`] lives as long as the channel and keeps what has to outlast a change
//! of the set (where a rotation stands); for every set it prepares a [`Picker`], which may hold
//! whatever makes picking from that one set quick.
//!
//! Adding a policy takes a file beside `round_robin.rs` and a line in [`Policy`].

pub mod random;
pub mod round_robin;

use std::{fmt, str::FromStr, sync::Arc};

use tokio::time::Instant;

pub use self::{random::Random, round_robin::RoundRobin};
use crate::endpoint::Endpoint;

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
    /// A number below `bound`, from the upper or the lower half of the random bits (Lemire's
    /// multiplication instead of a division). `bound` must not be zero.
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
    #[allow(dead_code)]
    Upper,
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

    /// How often each endpoint is picked in `picks` picks with a seeded generator.
    pub(crate) fn spread(picker: &dyn Picker, set: &[Arc<Endpoint>], picks: usize) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(42);
        let mut counts = vec![0; set.len()];
        for _ in 0..picks {
            let context = Context {
                now: Instant::now(),
                random: rng.u64(..),
                key: None,
                attempt: 0,
            };
            counts[picker.pick(set, &context) % set.len()] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_go_by_name() {
        for name in Policy::NAMES {
            assert_eq!(name.parse::<Policy>().unwrap().to_string(), *name);
        }
        let error = "best".parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains("round-robin"), "{error}");
    }
}
