//! Atomics and locks of the protocols made by hand: the standard library's, or loom's where a test
//! tries every order in which threads can meet. `scripts/test.sh` has the command.

#[cfg(not(all(test, discovery_loom)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(all(test, discovery_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
