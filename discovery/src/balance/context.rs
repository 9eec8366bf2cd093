//! The input of a pick besides the endpoints.

use std::time::Instant;

use crate::hash;

/// The input of a pick besides the endpoints.
///
/// ```
/// use std::time::Instant;
///
/// use discovery::balance::Context;
///
/// let context = Context::new(Instant::now(), 7).with_attempt(1);
/// assert_eq!((context.random, context.key, context.attempt), (7, None, 1));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The time of the pick, by the clock of the runtime.
    pub now: Instant,
    /// 64 random bits.
    pub random: u64,
    /// The request's [`HashKey`](crate::HashKey), for policies that send a key to the same instance.
    pub key: Option<u64>,
    /// Number of earlier attempts of the call; 0 for the first.
    pub attempt: u32,
}

impl Context {
    /// The context of a first attempt without a key. `random` is 64 random bits.
    #[must_use]
    pub const fn new(now: Instant, random: u64) -> Self {
        Self {
            now,
            random,
            key: None,
            attempt: 0,
        }
    }

    /// Sets [`key`](Self::key).
    #[must_use]
    pub const fn with_key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets [`attempt`](Self::attempt).
    #[must_use]
    pub const fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// More random bits, for policies that need more than [`random`](Self::random). Each `nth` gives
    /// an independent word. The channel uses the words from 8 on; those below are the policy's.
    #[must_use]
    pub fn further(&self, nth: u64) -> u64 {
        hash::nth(self.random, nth)
    }

    /// A number below `bound`, from the upper or the lower half of the random bits (Lemire's
    /// multiplication instead of a division); the halves are independent. 0 if `bound` is 0.
    /// The probabilities of two numbers differ by at most `bound` parts in 2^32.
    pub(super) fn below(&self, bound: usize, half: Half) -> usize {
        let bits = match half {
            Half::Lower => self.random & 0xffff_ffff,
            Half::Upper => self.random >> 32,
        };
        #[allow(
            clippy::cast_possible_truncation,
            reason = "below `bound`; sets of more than 2^32 endpoints do not occur"
        )]
        let index = ((bits * bound as u64) >> 32) as usize;
        index
    }
}

/// A half of [`Context::random`].
#[derive(Clone, Copy)]
pub(super) enum Half {
    Lower,
    Upper,
}
