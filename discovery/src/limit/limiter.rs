//! Admits calls up to a limit.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

use super::{ConcurrencyLimit, InFlight, Learner};

/// Admits calls up to a limit, which it may learn. Calls take no lock, and are not queued.
#[derive(Debug)]
pub struct Limiter {
    in_flight: InFlight,
    refused: AtomicU64,
    learner: Option<Learner>,
}

impl Limiter {
    /// A limiter of this kind; `None` for [`ConcurrencyLimit::Off`].
    #[must_use]
    pub fn new(limit: &ConcurrencyLimit) -> Option<Arc<Self>> {
        let (limit, learner) = match limit {
            ConcurrencyLimit::Off => return None,
            ConcurrencyLimit::Fixed(limit) => (limit.get(), None),
            ConcurrencyLimit::Learnt(settings) => {
                let learner = Learner::new(*settings, Instant::now());
                (settings.initial, Some(learner))
            }
        };
        Some(Arc::new(Self {
            in_flight: InFlight::new(Some(limit)),
            refused: AtomicU64::new(0),
            learner,
        }))
    }

    /// Admits a call, which counts until the permit is dropped. `None` if the limit is reached.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        if !self.in_flight.begin() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit {
            limiter: Arc::clone(self),
            begun: Instant::now(),
            answered: false,
        })
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.calls()
    }

    /// The current limit.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.in_flight.limit().unwrap_or(u32::MAX)
    }

    /// Calls refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// An admitted call. It counts until this is dropped.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<Limiter>,
    begun: Instant,
    answered: bool,
}

impl Permit {
    /// Notes that the answer begins: its latency is the time since the call was admitted. A call whose
    /// permit is dropped without took at least as long as that.
    pub fn answered(&mut self) {
        if std::mem::replace(&mut self.answered, true) {
            return;
        }
        if let Some(learner) = &self.limiter.learner {
            let now = Instant::now();
            let limit = learner.note(now, now - self.begun, self.limiter.in_flight());
            if limit.is_some() {
                self.limiter.in_flight.set_limit(limit);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.answered();
        self.limiter.in_flight.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        task::JoinSet,
        time::{advance, sleep},
    };

    use super::*;

    #[test]
    fn a_fixed_limit_is_never_exceeded_and_counts_what_it_refuses() {
        let limiter = Limiter::new(&"3".parse().unwrap()).unwrap();
        let permits: Vec<_> = (0..5).map(|_| limiter.try_acquire()).collect();
        assert_eq!(permits.iter().flatten().count(), 3);
        assert_eq!((limiter.in_flight(), limiter.refused()), (3, 2));
        drop(permits);
        assert_eq!(limiter.in_flight(), 0);
        assert!(limiter.try_acquire().is_some());
        assert!(Limiter::new(&ConcurrencyLimit::Off).is_none());
    }

    #[test]
    fn threads_that_ask_at_the_same_time_do_not_exceed_it() {
        let limiter = Limiter::new(&"2".parse().unwrap()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let permit = limiter.try_acquire();
                        assert!(limiter.in_flight() <= 2);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(limiter.in_flight(), 0);
    }

    /// A server with eight workers and a queue, under the load of 40 callers.
    #[tokio::test(start_paused = true)]
    async fn under_overload_calls_are_refused_and_the_others_do_not_wait_in_a_queue() {
        let limiter = Limiter::new(&ConcurrencyLimit::learnt()).unwrap();
        let workers = Arc::new(tokio::sync::Semaphore::new(8));
        let mut callers = JoinSet::new();
        for _ in 0..40 {
            let (limiter, workers) = (Arc::clone(&limiter), Arc::clone(&workers));
            callers.spawn(async move {
                let mut latest = Duration::ZERO;
                let end = Instant::now() + Duration::from_secs(20);
                while Instant::now() < end {
                    let Some(mut permit) = limiter.try_acquire() else {
                        sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    let begun = Instant::now();
                    let worker = workers.acquire().await.unwrap();
                    sleep(Duration::from_millis(10)).await;
                    drop(worker);
                    permit.answered();
                    latest = begun.elapsed();
                }
                latest
            });
        }
        let latest = callers.join_all().await;
        let longest = latest.iter().max().unwrap();
        // Without a limit, each would take 50 ms.
        assert!(*longest <= Duration::from_millis(40), "{longest:?}");
        assert!((2..=24).contains(&limiter.limit()), "{}", limiter.limit());
        assert!(limiter.refused() > 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_their_callers_give_up_count_with_the_time_that_they_took() {
        let limiter = Limiter::new(&ConcurrencyLimit::learnt()).unwrap();
        for latency in [10, 10, 1_000, 1_000, 1_000] {
            let permits: Vec<_> = (0..limiter.limit())
                .filter_map(|_| limiter.try_acquire())
                .collect();
            advance(Duration::from_millis(latency)).await;
            drop(permits);
            advance(Duration::from_secs(2)).await;
        }
        assert!(limiter.limit() < 20, "{}", limiter.limit());
    }
}
