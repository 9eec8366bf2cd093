//! The failures in a row of one subchannel, and the delay after them.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// Longest delay beside reachable instances, before jitter.
const RAREST: Duration = Duration::from_secs(60);
/// The part of its time without a connection after which an instance that had one is tried again.
/// It is found within a ninth of the time that its restart takes.
const PART_OF_OUTAGE: u32 = 8;

/// Attempts that failed and connections without use, in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    count: u32,
    /// The latest of them that happened while another instance was reachable.
    beside: Option<Beside>,
}

#[derive(Clone, Copy, Debug)]
struct Beside {
    since: Instant,
    count: u32,
}

/// The delay before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delay {
    /// Of the configured backoff.
    Usual(Duration),
    /// Longer, because calls have other instances.
    Rare(Duration),
}

impl Failures {
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Adds a connection that was of no use.
    pub(super) fn add_short_life(&mut self) {
        self.count = self.count.saturating_add(1);
        self.beside = None;
    }

    /// Adds a failed attempt.
    pub(super) fn add(&mut self, now: Instant, others_reachable: bool) {
        self.count = self.count.saturating_add(1);
        self.beside = others_reachable.then(|| {
            let since = self.beside.map_or(now, |beside| beside.since);
            let count = self.beside.map_or(0, |beside| beside.count);
            Beside {
                since,
                count: count.saturating_add(1),
            }
        });
    }

    /// The delay after the last failed attempt. Where all instances are unreachable it is that of
    /// `backoff`. Where others are reachable it grows further: an instance that never had a connection
    /// may not exist, so the delay doubles each time; one that had a connection may be restarting.
    pub(super) fn delay(
        &self,
        now: Instant,
        backoff: &Backoff,
        was_connected: bool,
        rng: &mut Rng,
    ) -> Delay {
        let usual = backoff.after(self.count, rng);
        let Some(beside) = self.beside else {
            return Delay::Usual(usual);
        };
        let rare = if was_connected {
            let part = ((now - beside.since) / PART_OF_OUTAGE).min(RAREST);
            Backoff::new(part, part).after(1, rng)
        } else {
            let ceiling = RAREST.max(backoff.ceiling);
            backoff.with_ceiling(ceiling).after(beside.count, rng)
        };
        // Within the jitter of the ceiling it is the configured backoff.
        if rare <= backoff.ceiling.saturating_mul(6) / 5 {
            return Delay::Usual(usual.max(rare));
        }
        Delay::Rare(usual.max(rare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(750));
    const LONGEST_USUAL: Duration = Duration::from_millis(900);

    fn next(failures: &mut Failures, now: Instant, others: bool, was_connected: bool) -> Delay {
        failures.add(now, others);
        failures.delay(now, &BACKOFF, was_connected, &mut Rng::with_seed(3))
    }

    /// Number of attempts in an hour without a connection, and the last delay.
    fn attempts(was_connected: bool) -> (u32, Duration) {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let (mut now, mut last) = (start, Duration::ZERO);
        while now < start + Duration::from_secs(3_600) {
            last = match next(&mut failures, now, true, was_connected) {
                Delay::Usual(delay) | Delay::Rare(delay) => delay,
            };
            now += last;
        }
        (failures.count(), last)
    }

    #[test]
    fn attempts_become_rare_beside_reachable_instances() {
        for was_connected in [false, true] {
            let (count, last) = attempts(was_connected);
            assert!(last >= Duration::from_secs(48), "{last:?}");
            assert!(last <= Duration::from_secs(72), "{last:?}");
            assert!(count < 140, "{count}");
        }
    }

    #[test]
    fn an_instance_that_was_connected_is_tried_more_often_at_first() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let mut now = start;
        while now < start + Duration::from_secs(30) {
            let outage = now - start;
            match next(&mut failures, now, true, true) {
                Delay::Usual(delay) => now += delay,
                Delay::Rare(delay) => {
                    assert!(delay <= outage / 6, "{delay:?} after {outage:?}");
                    now += delay;
                }
            }
        }
    }

    #[test]
    fn where_all_are_unreachable_the_delay_stays_usual_and_growth_begins_anew() {
        let (mut failures, mut now) = (Failures::default(), Instant::now());
        for _ in 0..20 {
            next(&mut failures, now, true, false);
        }
        for _ in 0..20 {
            now += Duration::from_secs(60);
            let Delay::Usual(delay) = next(&mut failures, now, false, false) else {
                panic!("a rare attempt");
            };
            assert!(delay <= LONGEST_USUAL, "{delay:?}");
        }
        let first = next(&mut failures, now, true, false);
        assert!(matches!(first, Delay::Usual(_)), "{first:?}");
    }
}
