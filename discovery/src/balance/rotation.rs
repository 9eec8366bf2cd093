//! The position of a rotation, shared by all threads and by the pickers of successive sets.
//!
//! In a set of up to [`EXACT`] endpoints, each pick takes the next turn from one counter: the rotation is
//! exact from any number of threads. Threads that pick at the same time then wait for that counter's cache
//! line, which costs several times as much as the rest of a pick. In a larger set, a thread takes a
//! [block](BLOCK) of turns at once and counts them in a cache line of its own. From one thread that is
//! exact too; `k` threads hold back at most `k * (BLOCK - 1)` turns of a cycle of over a thousand.

use std::{
    cell::Cell,
    sync::{Arc, OnceLock},
};

use crate::sync::atomic::{AtomicU64, Ordering};

/// Maximum number of endpoints of a set whose rotation is exact from any number of threads.
pub(super) const EXACT: usize = 1_024;
/// Turns that a thread takes at once in a larger set. A power of two.
const BLOCK: u64 = 16;
/// Number of blocks in use. Threads beyond this number share them.
const BLOCKS: usize = 16;

/// A count of turns. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Rotation(Arc<Turns>);

#[derive(Debug)]
struct Turns {
    next: Line,
    /// Made for the first pick from a large set.
    blocks: OnceLock<Box<[Line]>>,
}

/// A number in cache lines of its own, because every pick writes to it.
#[derive(Debug)]
#[repr(align(128))]
struct Line(AtomicU64);

/// The turns of one set.
#[derive(Debug)]
pub(super) struct SetTurns {
    turns: Arc<Turns>,
    in_blocks: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl Rotation {
    pub(super) fn starting_at(first: u64) -> Self {
        Self(Arc::new(Turns {
            next: Line(AtomicU64::new(first)),
            blocks: OnceLock::new(),
        }))
    }

    /// The turns of a set of this many endpoints.
    pub(super) fn of(&self, endpoints: usize) -> SetTurns {
        SetTurns {
            turns: Arc::clone(&self.0),
            in_blocks: endpoints > EXACT,
        }
    }
}

impl SetTurns {
    /// Takes the next turn, and returns its position in a cycle.
    pub(super) fn turn(&self, cycle: Modulus) -> u64 {
        cycle.of(if self.in_blocks {
            self.turns.of_block(thread_number() % BLOCKS)
        } else {
            self.turns.next.0.fetch_add(1, Ordering::Relaxed)
        })
    }
}

impl Turns {
    fn blocks(&self) -> &[Line] {
        self.blocks
            .get_or_init(|| (0..BLOCKS).map(|_| Line(AtomicU64::new(0))).collect())
    }

    /// The next turn of a block. A block is the number of its next turn and, in the lowest bits, how
    /// many turns it has left.
    fn of_block(&self, index: usize) -> u64 {
        let block = &self.blocks()[index].0;
        let mut seen = block.load(Ordering::Relaxed);
        while !seen.is_multiple_of(BLOCK) {
            let rest = seen.wrapping_add(BLOCK - 1);
            match block.compare_exchange_weak(seen, rest, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return seen / BLOCK,
                Err(now) => seen = now,
            }
        }
        let first = self.next.0.fetch_add(BLOCK, Ordering::Relaxed);
        // Two threads that share a block and find it empty take one each. The later one stays, so the other's
        // turns are skipped. (A swap instead of a store, because loom gives concurrent stores no order.)
        let rest = first.wrapping_add(1).wrapping_mul(BLOCK) + (BLOCK - 1);
        block.swap(rest, Ordering::Relaxed);
        // The same bits as of the turns that follow.
        first % (u64::MAX / BLOCK + 1)
    }
}

/// The number of the current thread, counted from 0.
fn thread_number() -> usize {
    use std::sync::atomic::AtomicUsize;

    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.with(|number| {
        number.get().unwrap_or_else(|| {
            let new = THREADS.fetch_add(1, Ordering::Relaxed);
            number.set(Some(new));
            new
        })
    })
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
    use std::{collections::BTreeSet, thread};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_thread_takes_each_turn_of_a_large_set_in_order() {
        let endpoints = EXACT + 1;
        let cycle = Modulus::new(endpoints as u64);
        for first in [0, 5, (3 << 60) + 5] {
            let turns = Rotation::starting_at(first).of(endpoints);
            let taken: Vec<_> = (0..2 * endpoints).map(|_| turns.turn(cycle)).collect();
            let distinct: BTreeSet<_> = taken[..endpoints].iter().collect();
            assert_eq!(distinct.len(), endpoints, "from {first}");
            assert_eq!(taken[..endpoints], taken[endpoints..], "from {first}");
        }
    }

    #[test]
    fn threads_take_the_turns_of_a_large_set_evenly() {
        const THREADS: usize = 4;
        let (endpoints, cycles) = (EXACT + 1, 50);
        let cycle = Modulus::new(endpoints as u64);
        let turns = &Rotation::default().of(endpoints);
        let mut counts = vec![0_usize; endpoints];
        thread::scope(|scope| {
            let take = || {
                (0..endpoints * cycles / THREADS)
                    .map(|_| turns.turn(cycle))
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take)).collect();
            for thread in threads {
                for turn in thread.join().unwrap() {
                    counts[usize::try_from(turn).unwrap()] += 1;
                }
            }
        });
        // Other tests' threads may share a block with one of these.
        for count in counts {
            assert!(
                (cycles - 3..=cycles + 3).contains(&count),
                "{count} of {cycles}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_remainder_is_exact(number: u64, divisor in 1_u64.., small in 1_u64..100_000) {
            prop_assert_eq!(Modulus::new(divisor).of(number), number % divisor);
            prop_assert_eq!(Modulus::new(small).of(number), number % small);
            prop_assert_eq!(Modulus::new(small).of(u64::MAX), u64::MAX % small);
        }
    }
}

#[cfg(all(test, discovery_loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn no_turn_of_a_shared_block_is_taken_twice() {
        loom::model(|| {
            let turns = Arc::new(Turns {
                next: Line(AtomicU64::new(0)),
                blocks: OnceLock::new(),
            });
            // The standard library's OnceLock is not part of the model.
            turns.blocks();
            let other = {
                let turns = Arc::clone(&turns);
                thread::spawn(move || [turns.of_block(0), turns.of_block(0)])
            };
            let mut taken = [turns.of_block(0), turns.of_block(0)].to_vec();
            taken.extend(other.join().unwrap());
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), 4, "{taken:?}");
        });
    }
}
