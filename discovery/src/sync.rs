//! Atomics and locks of the hand-written protocols: the standard library's, or loom's in the tests that
//! try every order of the threads' steps (`scripts/test.sh loom`).

#[cfg(not(all(test, discovery_loom)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(all(test, discovery_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
