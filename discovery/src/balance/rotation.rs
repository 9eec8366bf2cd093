//! The position of a rotation, shared by all threads and by the pickers of successive sets.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A count of turns. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct Rotation(Arc<Turns>);

/// Aligned to its own cache lines, because every pick of every thread writes to it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Turns(AtomicU64);

impl Rotation {
    pub(super) fn starting_at(first: u64) -> Self {
        Self(Arc::new(Turns(AtomicU64::new(first))))
    }

    /// Takes the next turn, and returns its position in a cycle.
    pub(super) fn turn(&self, cycle: Modulus) -> u64 {
        cycle.of(self.0.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The remainder of a division by a constant divisor: two multiplications, several times faster than
/// a 64-bit division (Granlund and Montgomery 1994).
#[derive(Clone, Copy, Debug)]
pub(super) struct Modulus {
    divisor: u64,
    /// 2^64 divided by the divisor, rounded down.
    reciprocal: u64,
}

impl Modulus {
    /// Division by `divisor`, or by 1 if it is 0.
    pub(super) fn new(divisor: u64) -> Self {
        let divisor = divisor.max(1);
        Self {
            divisor,
            reciprocal: u64::MAX / divisor,
        }
    }

    pub(super) fn divisor(self) -> u64 {
        self.divisor
    }

    pub(super) fn of(self, number: u64) -> u64 {
        let product = u128::from(number) * u128::from(self.reciprocal);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the upper half of 128 bits"
        )]
        let quotient = (product >> 64) as u64;
        // The quotient is exact or too small by one.
        let rest = number - quotient * self.divisor;
        if rest < self.divisor {
            rest
        } else {
            rest - self.divisor
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_remainder_is_exact(number: u64, divisor in 1_u64.., small in 1_u64..100_000) {
            prop_assert_eq!(Modulus::new(divisor).of(number), number % divisor);
            prop_assert_eq!(Modulus::new(small).of(number), number % small);
            prop_assert_eq!(Modulus::new(small).of(u64::MAX), u64::MAX % small);
        }
    }
}
