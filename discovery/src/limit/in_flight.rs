//! The calls in flight, which do not exceed their limit.

use crate::sync::atomic::{AtomicU32, Ordering};

/// The limit where there is none.
const UNLIMITED: u32 = u32::MAX;

/// A count of calls and its limit. A call takes its place before it is sent: of calls that look at the
/// same time, no more than the limit have one.
#[derive(Debug)]
pub(crate) struct InFlight {
    calls: AtomicU32,
    limit: AtomicU32,
}

impl InFlight {
    /// A count without calls. `None` is no limit.
    pub(crate) fn new(limit: Option<u32>) -> Self {
        Self {
            calls: AtomicU32::new(0),
            limit: AtomicU32::new(limit.unwrap_or(UNLIMITED)),
        }
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> Option<u32> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit != UNLIMITED).then_some(limit)
    }

    /// Sets the limit of the calls that begin from now on.
    pub(crate) fn set_limit(&self, limit: Option<u32>) {
        self.limit
            .store(limit.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// True if a call that begins now would exceed the limit.
    pub(crate) fn is_full(&self) -> bool {
        self.calls() >= self.limit.load(Ordering::Relaxed)
    }

    /// Begins a call. False if that would exceed the limit.
    pub(crate) fn begin(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == UNLIMITED {
            self.calls.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let below = |calls: u32| (calls < limit).then_some(calls + 1);
        self.calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .is_ok()
    }

    /// Ends a call that has begun.
    pub(crate) fn end(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_lowered_or_removed_applies_to_the_next_call() {
        let in_flight = InFlight::new(None);
        for _ in 0..5 {
            assert!(in_flight.begin() && !in_flight.is_full());
        }
        in_flight.set_limit(Some(3));
        assert!(in_flight.is_full() && !in_flight.begin());
        for _ in 0..3 {
            in_flight.end();
        }
        assert!(in_flight.begin() && !in_flight.begin());
        in_flight.set_limit(None);
        assert!(in_flight.begin());
        assert_eq!((in_flight.calls(), in_flight.limit()), (4, None));
    }
}

#[cfg(all(test, discovery_loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    /// Begins a call if there is a place, and ends it. True if there was one.
    fn call(in_flight: &InFlight, running: &AtomicU32, limit: u32) -> bool {
        if !in_flight.begin() {
            return false;
        }
        assert!(running.fetch_add(1, Ordering::Relaxed) < limit);
        running.fetch_sub(1, Ordering::Relaxed);
        in_flight.end();
        true
    }

    #[test]
    fn calls_that_look_at_the_same_time_do_not_exceed_the_limit_and_leave_no_place_taken() {
        loom::model(|| {
            const LIMIT: u32 = 1;
            let shared = Arc::new((InFlight::new(Some(LIMIT)), AtomicU32::new(0)));
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || call(&shared.0, &shared.1, LIMIT))
                })
                .collect();
            let mut begun = u32::from(call(&shared.0, &shared.1, LIMIT));
            for other in others {
                begun += u32::from(other.join().unwrap());
            }
            assert!(begun >= 1);
            assert_eq!(shared.0.calls(), 0);
        });
    }
}
