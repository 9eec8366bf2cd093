//! The order and the pace of attempts to connect, over all instances of a channel. Pure: the caller
//! passes the time.
//!
//! Attempts wait in four queues. Those after a lost connection come first, then those to instances that
//! were never tried. Both begin as soon as one of the `places` for attempts at the same time is free.
//!
//! Attempts to unreachable instances come last and take a token each. The rate of tokens does not
//! depend on the number of instances. Instances that had a connection alternate with those that never
//! had one, and within each kind the one with the fewest failures comes first: an instance that is new
//! in the set does not wait for thousands that have failed for hours. An attempt that succeeds returns
//! its token, so that a set that returns as a whole is connected without a limit of rate.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// Tokens a second while another instance is reachable: about a hundredth of a core.
const RATE_BESIDE: f64 = 100.0;
/// Tokens a second while no instance is reachable, and no call needs one.
const RATE_DOWN: f64 = 250.0;
/// Tokens a second while no instance is reachable, and calls fail for it: 5 000 instances are tried
/// within a second.
const RATE_URGENT: f64 = 6_000.0;
/// Time for which one call keeps the rate at [`RATE_URGENT`].
const URGENT: Duration = Duration::from_secs(1);
/// Minimum interval between two urgent times that begin without a call, when the last instance has
/// become unreachable.
const SWEEP_AGAIN: Duration = Duration::from_secs(10);
/// Tokens are saved up for this time.
const SAVED: Duration = Duration::from_millis(20);
/// Minimum wait for a token: the resolution of tokio's timers. Tokens are saved up meanwhile.
const TICK: Duration = Duration::from_millis(1);
/// Interval between attempts while no file descriptor is left.
const TRIAL: Duration = Duration::from_secs(1);

/// The reason for an attempt, which is its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A connection that worked has ended.
    Lost,
    /// The instance was never tried.
    First,
    /// The last attempt failed, to an instance that had a connection before.
    Known,
    /// The last attempt failed, to an instance that never had a connection.
    Unknown,
}

impl Reason {
    fn is_paced(self) -> bool {
        matches!(self, Self::Known | Self::Unknown)
    }
}

/// Identifies a waiting attempt within its queue: its failures, and a number that counts up.
pub(super) type Key = (u32, u64);

/// The next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// This attempt begins now.
    Begin(Reason, T),
    /// Attempts wait for a token or a file descriptor. Look again at this time.
    At(Instant),
    /// No attempt can begin before another one waits or has ended.
    Nothing,
}

/// The end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Connected,
    Failed,
    /// There was no file descriptor for it.
    NoDescriptor,
    Cancelled,
}

/// See the [module](self). `T` stands for a waiting attempt.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    queues: [BTreeMap<Key, T>; 4],
    added: u64,
    /// Maximum number of attempts under way.
    places: usize,
    running: usize,
    /// Number of instances whose last attempt succeeded.
    reachable: usize,
    tokens: f64,
    refilled: Instant,
    urgent_until: Option<Instant>,
    swept: Option<Instant>,
    /// True if the last token was taken for an instance that had a connection.
    known_was_last: bool,
    /// The time of the next attempt, if the last one found no file descriptor.
    trial: Option<Instant>,
    /// True if the current shortage of file descriptors was reported.
    shortage_reported: bool,
}

impl<T> Schedule<T> {
    pub(super) fn new(places: usize, now: Instant) -> Self {
        Self {
            queues: Default::default(),
            added: 0,
            places,
            running: 0,
            reachable: 0,
            tokens: 1.0,
            refilled: now,
            urgent_until: None,
            swept: None,
            known_was_last: false,
            trial: None,
            shortage_reported: false,
        }
    }

    /// Adds an attempt to its queue. `failures` is the number of those before it.
    pub(super) fn add(&mut self, reason: Reason, failures: u32, waiting: T) -> Key {
        let key = (failures, self.added);
        self.added += 1;
        self.queues[reason as usize].insert(key, waiting);
        key
    }

    /// Removes an attempt that no longer waits.
    pub(super) fn remove(&mut self, reason: Reason, key: Key) {
        self.queues[reason as usize].remove(&key);
    }

    /// The attempt that begins now, or when to look again.
    pub(super) fn next(&mut self, now: Instant) -> Next<T> {
        self.refill(now);
        if self.queues.iter().all(BTreeMap::is_empty) {
            self.shortage_reported &= self.trial.is_some();
            return Next::Nothing;
        }
        if let Some(trial) = self.trial.filter(|trial| now < *trial) {
            return Next::At(trial);
        }
        let (first, second) = if self.known_was_last {
            (Reason::Unknown, Reason::Known)
        } else {
            (Reason::Known, Reason::Unknown)
        };
        let order = [Reason::Lost, Reason::First, first, second];
        let Some(reason) = order.into_iter().find(|reason| self.has_place(*reason)) else {
            return Next::Nothing;
        };
        if reason.is_paced() {
            if self.tokens < 1.0 {
                let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.rate(now));
                return Next::At(now + wait.max(TICK));
            }
            self.tokens -= 1.0;
            self.known_was_last = reason == Reason::Known;
        }
        let Some((_, waiting)) = self.queues[reason as usize].pop_first() else {
            return Next::Nothing;
        };
        self.running += 1;
        // While there may be no descriptor, one attempt at a time looks for one.
        self.trial = self.trial.map(|_| now + TRIAL);
        Next::Begin(reason, waiting)
    }

    /// True if an attempt of this kind waits, and a place is free for it. Attempts that hang take
    /// their places for long, so the last places are for those that matter more.
    fn has_place(&self, reason: Reason) -> bool {
        let kept_free = match reason {
            Reason::Lost => 0,
            Reason::First => self.places / 8,
            Reason::Known => self.places / 4,
            Reason::Unknown => self.places / 2,
        };
        let free = self.places.saturating_sub(self.running);
        free > kept_free && !self.queues[reason as usize].is_empty()
    }

    /// Notes the end of an attempt. True if it found no file descriptor, and this is to be reported.
    pub(super) fn end(&mut self, reason: Reason, end: End, now: Instant) -> bool {
        self.running = self.running.saturating_sub(1);
        if end != End::Failed && reason.is_paced() {
            self.tokens += 1.0;
        }
        match end {
            End::Connected | End::Failed => self.trial = None,
            End::NoDescriptor => {
                self.trial = Some(now + TRIAL);
                return !std::mem::replace(&mut self.shortage_reported, true);
            }
            End::Cancelled => {}
        }
        false
    }

    /// Notes that a connection has ended, which frees its file descriptor.
    pub(super) fn descriptor_freed(&mut self, now: Instant) {
        self.trial = self.trial.map(|_| now);
    }

    pub(super) fn has_reachable(&self) -> bool {
        self.reachable > 0
    }

    pub(super) fn add_reachable(&mut self) {
        self.reachable += 1;
    }

    /// Removes a reachable instance. True if no other one is left; then all are tried soon.
    pub(super) fn remove_reachable(&mut self, now: Instant) -> bool {
        self.reachable = self.reachable.saturating_sub(1);
        if self.has_reachable() {
            return false;
        }
        if self.swept.is_none_or(|at| now >= at + SWEEP_AGAIN) {
            self.swept = Some(now);
            self.urge(now);
        }
        true
    }

    /// Raises the rate for a while, as a call finds no reachable instance.
    pub(super) fn urge(&mut self, now: Instant) {
        // With the rate before.
        self.refill(now);
        self.urgent_until = Some(now + URGENT);
    }

    fn rate(&self, now: Instant) -> f64 {
        if self.has_reachable() {
            RATE_BESIDE
        } else if self.urgent_until.is_some_and(|until| now < until) {
            RATE_URGENT
        } else {
            RATE_DOWN
        }
    }

    fn refill(&mut self, now: Instant) {
        let rate = self.rate(now);
        let elapsed = now.saturating_duration_since(self.refilled);
        let most = (rate * SAVED.as_secs_f64()).max(1.0);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * rate).min(most);
        self.refilled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    struct Simulated {
        schedule: Schedule<u32>,
        now: Instant,
    }

    impl Simulated {
        fn new(places: usize) -> Self {
            let now = Instant::now();
            Self {
                schedule: Schedule::new(places, now),
                now,
            }
        }

        /// Adds attempts that are numbered from `first`.
        fn add(&mut self, reason: Reason, failures: u32, first: u32, count: u32) {
            for number in first..first + count {
                self.schedule.add(reason, failures, number);
            }
        }

        /// Begins all that can begin within this time, and ends each at once.
        fn run(&mut self, time: Duration, end: End) -> Vec<u32> {
            let until = self.now + time;
            let mut begun = Vec::new();
            loop {
                match self.schedule.next(self.now) {
                    Next::Begin(reason, number) => {
                        begun.push(number);
                        self.schedule.end(reason, end, self.now);
                    }
                    Next::At(at) if at < until => self.now = at,
                    Next::At(_) | Next::Nothing => {
                        self.now = until;
                        return begun;
                    }
                }
            }
        }

        /// The numbers of all that can begin now; they stay under way.
        fn begin(&mut self) -> Vec<u32> {
            std::iter::from_fn(|| match self.schedule.next(self.now) {
                Next::Begin(_, number) => Some(number),
                Next::At(_) | Next::Nothing => None,
            })
            .collect()
        }
    }

    #[test]
    fn the_rate_of_failures_does_not_grow_with_the_set() {
        for count in [5_000, 50_000] {
            let mut simulated = Simulated::new(32);
            simulated.add(Reason::Unknown, 1, 0, count);
            let down = simulated.run(10 * SECOND, End::Failed).len();
            assert!((2_400..2_600).contains(&down), "{down}");
            simulated.schedule.urge(simulated.now);
            let urgent = simulated.run(SECOND, End::Failed).len();
            assert!(urgent <= 6_200, "{urgent}");
            simulated.schedule.add_reachable();
            simulated.add(Reason::Known, 1, 0, count);
            let beside = simulated.run(10 * SECOND, End::Failed).len();
            assert!((950..1_050).contains(&beside), "{beside}");
        }
    }

    #[test]
    fn five_thousand_are_tried_within_a_second_of_a_call_that_needs_one() {
        let mut simulated = Simulated::new(32);
        simulated.add(Reason::Unknown, 7, 0, 5_000);
        simulated.schedule.urge(simulated.now);
        assert_eq!(simulated.run(SECOND, End::Failed).len(), 5_000);
    }

    #[test]
    fn a_set_that_returns_as_a_whole_is_connected_at_once() {
        let mut simulated = Simulated::new(32);
        simulated.add(Reason::Known, 7, 0, 5_000);
        assert_eq!(simulated.run(MS, End::Connected).len(), 5_000);
    }

    #[test]
    fn lost_and_new_ones_come_first_and_then_those_with_the_fewest_failures() {
        let mut simulated = Simulated::new(1);
        simulated.add(Reason::Unknown, 9, 10, 2);
        simulated.add(Reason::Unknown, 1, 20, 1);
        simulated.add(Reason::Known, 5, 30, 2);
        simulated.add(Reason::First, 0, 40, 2);
        simulated.add(Reason::Lost, 0, 50, 1);
        let begun = simulated.run(SECOND, End::Failed);
        assert_eq!(begun, [50, 40, 41, 30, 20, 31, 10, 11]);
    }

    #[test]
    fn attempts_that_hang_leave_places_to_those_that_matter_more() {
        let mut simulated = Simulated::new(8);
        let mut begun = Vec::new();
        for (reason, first) in [
            (Reason::Unknown, 0),
            (Reason::Known, 10),
            (Reason::First, 20),
            (Reason::Lost, 30),
        ] {
            simulated.add(reason, 1, first, 9);
            for _ in 0..9 {
                begun.extend(simulated.begin());
                simulated.now += SECOND;
            }
        }
        assert_eq!(begun, [0, 1, 2, 3, 10, 11, 20, 30]);
    }

    #[test]
    fn without_file_descriptors_one_attempt_a_second_looks_for_one() {
        let mut simulated = Simulated::new(32);
        simulated.add(Reason::First, 0, 0, 100);
        let begun = simulated.begin();
        assert_eq!(begun.len(), 28);
        let end = |simulated: &mut Simulated, end| {
            let now = simulated.now;
            simulated.schedule.end(Reason::First, end, now)
        };
        // Reported once.
        assert!(end(&mut simulated, End::NoDescriptor));
        assert!(!end(&mut simulated, End::NoDescriptor));
        for _ in 2..28 {
            end(&mut simulated, End::NoDescriptor);
        }
        assert_eq!(simulated.run(10 * SECOND + MS, End::NoDescriptor).len(), 10);
        // A connection ends: its descriptor is used at once, for a lost connection first.
        simulated.add(Reason::Lost, 0, 1_000, 1);
        let now = simulated.now;
        simulated.schedule.descriptor_freed(now);
        assert_eq!(simulated.begin(), [1_000]);
        end(&mut simulated, End::Connected);
        assert_eq!(simulated.begin().len(), 28);
    }
}
