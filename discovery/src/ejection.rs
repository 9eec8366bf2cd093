//! Outlier ejection: takes an endpoint out of picking on the evidence of real calls, and lets it
//! back.
//!
//! ```text
//! Admitted --evidence--> Ejected --time over, probe answered--> Probation --one good call--> Admitted
//!                           ^------------- probe or call failed ----'        (with a slow start)
//! ```
//!
//! The evidence is of three kinds. Failures in a row, counted apart for broken connections and for
//! bad statuses, as Envoy does; they work with two instances as with a thousand. A failing share
//! that stands out against what the others show together, which works from two instances up. And
//! the success rate against mean and standard deviation (gRPC proposal A50), from five instances up.
//! If every instance fails alike, none stands out and none is ejected by share.
//!
//! Pure: the time comes in as a parameter, nothing is sent. [`Health`] is written by calls without
//! a lock; [`Ejector::review`] runs in the endpointer's task and decides.

use std::{collections::VecDeque, sync::PoisonError, time::Duration};

use tokio::time::Instant;

use crate::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
};

/// When to eject, and for how long.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EjectionPolicy {
    /// Off: nothing is ever ejected. Default: on.
    pub enabled: bool,
    /// Broken connections and unanswered calls in a row that eject; 0 turns it off. Default: 3.
    pub consecutive_transport: u32,
    /// Statuses in a row that blame the server; 0 turns it off. Default: 5, as in Envoy.
    pub consecutive_status: u32,
    /// Calls in a row that a second attempt elsewhere has overtaken (hedging); 0 turns it off.
    /// Default: 10, which one call in twenty does not reach by chance.
    pub consecutive_overtaken: u32,
    /// How far back shares are counted. Default: 10 s, as in A50.
    pub window: Duration,
    /// Calls an instance must have had in the window before its share counts. Default: 5, as in
    /// Linkerd.
    pub min_calls: u32,
    /// Failing share that ejects, if it is also three times the share of all others together; 1
    /// turns it off. Default: 0.2, as in Linkerd.
    pub failing_share: f64,
    /// Standard deviations below the mean success rate that eject, with five instances or more and
    /// a hundred calls each; 0 turns it off. Default: 1.9, as in A50.
    pub success_rate_deviations: f64,
    /// Time of a first ejection; the n-th in short order takes n times as long. Default: 3 s; A50
    /// has 30 s, but returns without a probe.
    pub base_time: Duration,
    /// No ejection takes longer. Default: 60 s.
    pub max_time: Duration,
    /// Share of the instances that may be out at the same time, at least one, never all.
    /// Default: 0.5; A50 has 0.1, which is less than one instance below ten.
    pub max_share: f64,
    /// Time over which a returning instance gets from a tenth of its share to all of it.
    /// Default: 5 s.
    pub slow_start: Duration,
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_transport: 3,
            consecutive_status: 5,
            consecutive_overtaken: 10,
            window: Duration::from_secs(10),
            min_calls: 5,
            failing_share: 0.2,
            success_rate_deviations: 1.9,
            base_time: Duration::from_secs(3),
            max_time: Duration::from_secs(60),
            max_share: 0.5,
            slow_start: Duration::from_secs(5),
        }
    }
}

/// A success rate that stands out needs this many instances and calls of each to compare (A50).
const RATE_INSTANCES: usize = 5;
const RATE_CALLS: u64 = 100;
/// A rate this good is no outlier, however small the deviation among the rest.
const RATE_GOOD: f64 = 0.95;
/// From this failing share of all others on, failures in a row say nothing about one instance.
const OTHERS_FAIL: f64 = 0.5;
/// How much more often than all others together an instance must fail to stand out.
const STANDS_OUT: f64 = 3.0;
/// Buckets of the window.
const BUCKETS: usize = 10;
/// Where a slow start begins.
const SLOW_START_FLOOR: f64 = 0.1;

/// What one ended attempt says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answered; whatever the answer was, the server is not to blame.
    Success,
    /// The connection broke, or no answer came in time.
    Transport,
    /// A status that blames the server.
    Status,
    /// The server said that it has too much to do: it counts toward shares only, for an instance
    /// that sheds load is alive.
    Overloaded,
    /// Still out when a second attempt elsewhere was answered. The slow end of a healthy latency
    /// looks like this as well, so only a long run of it counts.
    Overtaken,
}

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    /// Takes calls.
    Admitted,
    /// Takes none until its time is over.
    Ejected,
    /// Its time is over and a probe is under way.
    Probing,
    /// Takes one call at a time.
    Probation,
}

impl Standing {
    const ALL: [Self; 4] = [
        Self::Admitted,
        Self::Ejected,
        Self::Probing,
        Self::Probation,
    ];
}

/// One endpoint's record.
#[derive(Debug, Default)]
pub(crate) struct Health {
    transport_run: AtomicU32,
    status_run: AtomicU32,
    overtaken_run: AtomicU32,
    good: AtomicU32,
    bad: AtomicU32,
    standing: AtomicU8,
    /// The one call of a probation is under way.
    on_trial: AtomicBool,
    /// What that call or the probe before it showed: see `RESULT_*`.
    result: AtomicU8,
    record: Mutex<Record>,
}

const RESULT_NONE: u8 = 0;
const RESULT_GOOD: u8 = 1;
const RESULT_BAD: u8 = 2;

#[derive(Debug, Default)]
struct Record {
    /// Good and bad calls of the buckets before the current one.
    buckets: VecDeque<(u32, u32)>,
    /// Ejections in short order.
    times: u32,
    /// When the last ejection began.
    since: Option<Instant>,
    /// When it ends, or when one was last forgiven.
    until: Option<Instant>,
    slow_start_from: Option<Instant>,
}

impl Health {
    pub(crate) fn standing(&self) -> Standing {
        let index = usize::from(self.standing.load(Ordering::Acquire));
        Standing::ALL[index.min(Standing::ALL.len() - 1)]
    }

    /// Takes the one trial call of a probation, if nobody has.
    pub(crate) fn take_trial(&self) -> bool {
        self.standing() == Standing::Probation && !self.on_trial.swap(true, Ordering::AcqRel)
    }

    /// Gives the trial back unused.
    pub(crate) fn return_trial(&self) {
        self.on_trial.store(false, Ordering::Release);
    }

    /// Notes how an attempt ended. True when a review may have something to decide.
    pub(crate) fn note(&self, verdict: Verdict, trial: bool, policy: &EjectionPolicy) -> bool {
        if trial {
            return self.conclude(verdict == Verdict::Success);
        }
        if self.standing() != Standing::Admitted {
            // Begun before the ejection; it says nothing that the ejection does not.
            return false;
        }
        match verdict {
            Verdict::Success => {
                self.good.fetch_add(1, Ordering::Relaxed);
                // Reading first keeps the line shared between cores in the good case.
                for run in [&self.transport_run, &self.status_run, &self.overtaken_run] {
                    if run.load(Ordering::Relaxed) != 0 {
                        run.store(0, Ordering::Relaxed);
                    }
                }
                false
            }
            Verdict::Transport => self.count(&self.transport_run, policy.consecutive_transport),
            Verdict::Status => self.count(&self.status_run, policy.consecutive_status),
            Verdict::Overloaded => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                false
            }
            Verdict::Overtaken => {
                let limit = policy.consecutive_overtaken;
                self.overtaken_run.fetch_add(1, Ordering::Relaxed) + 1 >= limit && limit > 0
            }
        }
    }

    fn count(&self, run: &AtomicU32, limit: u32) -> bool {
        self.bad.fetch_add(1, Ordering::Relaxed);
        run.fetch_add(1, Ordering::Relaxed) + 1 >= limit && limit > 0
    }

    /// Notes what a probe or a trial call showed. Always worth a review.
    pub(crate) fn conclude(&self, good: bool) -> bool {
        let result = if good { RESULT_GOOD } else { RESULT_BAD };
        // A swap and no store, for loom orders only these against the review's own swap.
        let _before = self.result.swap(result, Ordering::AcqRel);
        true
    }

    /// Connected anew at `at`: evidence against the process before says little of this one, so an
    /// ejection from before ends with a probe now.
    pub(crate) fn reconnected(&self, at: Instant) {
        if self.standing() == Standing::Ejected {
            let mut record = self.lock();
            if record.since.is_some_and(|since| since < at) {
                record.until = Some(at);
            }
        }
    }

    /// When the last ejection began.
    pub(crate) fn ejected_at(&self) -> Option<Instant> {
        self.lock().since
    }

    /// There is no connection to probe with: look again later, without calling it a failure.
    pub(crate) fn postpone(&self, until: Instant) {
        self.lock().until = Some(until);
        self.set(Standing::Ejected);
    }

    /// The share of its calls that an endpoint in slow start is to get; 1 outside of it.
    pub(crate) fn slow_start_share(&self, now: Instant, policy: &EjectionPolicy) -> f64 {
        match self.lock().slow_start_from {
            Some(from) if now < from + policy.slow_start => {
                let passed = (now - from).as_secs_f64() / policy.slow_start.as_secs_f64();
                passed.max(SLOW_START_FLOOR)
            }
            _ => 1.0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Release);
    }

    fn runs_over(&self, policy: &EjectionPolicy) -> Option<&'static str> {
        let over = |run: &AtomicU32, limit| limit > 0 && run.load(Ordering::Relaxed) >= limit;
        if over(&self.transport_run, policy.consecutive_transport) {
            Some("calls broken or unanswered in a row")
        } else if over(&self.status_run, policy.consecutive_status) {
            Some("bad statuses in a row")
        } else if over(&self.overtaken_run, policy.consecutive_overtaken) {
            Some("overtaken by second attempts in a row")
        } else {
            None
        }
    }

    /// Good and bad calls within the window.
    fn totals(&self) -> Totals {
        let record = self.lock();
        let current = (
            self.good.load(Ordering::Relaxed),
            self.bad.load(Ordering::Relaxed),
        );
        record
            .buckets
            .iter()
            .chain([&current])
            .fold(Totals::default(), |sum, (good, bad)| Totals {
                good: sum.good + u64::from(*good),
                bad: sum.bad + u64::from(*bad),
            })
    }

    fn roll(&self, now: Instant, policy: &EjectionPolicy) {
        let mut record = self.lock();
        let bucket = (
            self.good.swap(0, Ordering::Relaxed),
            self.bad.swap(0, Ordering::Relaxed),
        );
        record.buckets.push_back(bucket);
        if record.buckets.len() >= BUCKETS {
            record.buckets.pop_front();
        }
        if record.times > 0
            && self.standing() == Standing::Admitted
            && record
                .until
                .is_some_and(|since| now >= since + policy.window)
        {
            record.times -= 1;
            record.until = Some(now);
        }
    }

    fn eject(&self, now: Instant, policy: &EjectionPolicy) -> Duration {
        let mut record = self.lock();
        record.times = record.times.saturating_add(1);
        let time = policy
            .base_time
            .saturating_mul(record.times)
            .min(policy.max_time);
        record.since = Some(now);
        record.until = Some(now + time);
        record.buckets.clear();
        record.slow_start_from = None;
        for counter in [
            &self.transport_run,
            &self.status_run,
            &self.overtaken_run,
            &self.good,
            &self.bad,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.result.store(RESULT_NONE, Ordering::Release);
        self.set(Standing::Ejected);
        self.return_trial();
        time
    }

    fn admit(&self, now: Instant) {
        let mut record = self.lock();
        record.until = Some(now);
        record.slow_start_from = Some(now);
        self.set(Standing::Admitted);
        self.return_trial();
    }

    fn take_result(&self) -> Option<bool> {
        match self.result.swap(RESULT_NONE, Ordering::AcqRel) {
            RESULT_GOOD => Some(true),
            RESULT_BAD => Some(false),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Totals {
    good: u64,
    bad: u64,
}

impl Totals {
    fn sum(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |sum, one| Self {
            good: sum.good + one.good,
            bad: sum.bad + one.bad,
        })
    }

    fn without(self, one: Self) -> Self {
        Self {
            good: self.good - one.good,
            bad: self.bad - one.bad,
        }
    }

    fn calls(self) -> u64 {
        self.good + self.bad
    }

    #[allow(clippy::cast_precision_loss)]
    fn failing(self) -> f64 {
        self.bad as f64 / self.calls().max(1) as f64
    }
}

/// Decides, over all endpoints of a set together.
#[derive(Debug)]
pub(crate) struct Ejector {
    policy: EjectionPolicy,
    next_roll: Option<Instant>,
}

/// What changed in a review. Indices are those of the reviewed slice.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Review {
    /// Whether any endpoint's standing changed.
    pub(crate) changed: bool,
    /// Newly ejected, with the reason and the time.
    pub(crate) ejected: Vec<(usize, &'static str, Duration)>,
    /// Time is over: to be probed now, with [`Health::conclude`] told the result.
    pub(crate) probe: Vec<usize>,
    /// Back from probation.
    pub(crate) admitted: Vec<usize>,
    /// When to review again at the latest.
    pub(crate) next: Option<Instant>,
}

impl Ejector {
    pub(crate) fn new(policy: EjectionPolicy) -> Self {
        Self {
            policy,
            next_roll: None,
        }
    }

    /// Looks at every endpoint's record and moves those that have to move.
    pub(crate) fn review(&mut self, now: Instant, set: &[&Health]) -> Review {
        let mut review = Review::default();
        if !self.policy.enabled {
            return review;
        }
        let bucket = self.policy.window / u32::try_from(BUCKETS).unwrap_or(1);
        let roll = *self.next_roll.get_or_insert(now + bucket) <= now;
        self.bring_back(now, set, &mut review);
        let mut suspects = consecutive(set, &self.policy);
        if roll {
            suspects.extend(failing_share(set, &self.policy));
            suspects.extend(success_rate(set, &self.policy));
        }
        self.eject(now, set, &suspects, &mut review);
        if roll {
            for health in set {
                health.roll(now, &self.policy);
            }
            self.next_roll = Some(now + bucket);
        }
        review.changed |= !review.ejected.is_empty() || !review.admitted.is_empty();
        review.next = set
            .iter()
            .filter(|health| health.standing() == Standing::Ejected)
            .filter_map(|health| health.lock().until)
            .chain(self.next_roll)
            .min();
        review
    }

    fn bring_back(&self, now: Instant, set: &[&Health], review: &mut Review) {
        for (index, health) in set.iter().enumerate() {
            match health.standing() {
                Standing::Admitted => {}
                Standing::Ejected => {
                    if health.lock().until.is_none_or(|until| until <= now) {
                        health.set(Standing::Probing);
                        health.result.store(RESULT_NONE, Ordering::Release);
                        review.probe.push(index);
                    }
                }
                Standing::Probing => match health.take_result() {
                    Some(true) => {
                        // In this order: a trial taken in between would be given away again.
                        health.return_trial();
                        health.set(Standing::Probation);
                        review.changed = true;
                    }
                    Some(false) => {
                        health.eject(now, &self.policy);
                    }
                    None => {}
                },
                Standing::Probation => match health.take_result() {
                    Some(true) => {
                        health.admit(now);
                        review.admitted.push(index);
                    }
                    Some(false) => {
                        health.eject(now, &self.policy);
                        review.changed = true;
                    }
                    None => {}
                },
            }
        }
    }

    /// Ejects the suspects, worst evidence first, as far as the largest share allows.
    fn eject(
        &self,
        now: Instant,
        set: &[&Health],
        suspects: &[(usize, &'static str)],
        review: &mut Review,
    ) {
        let mut out = set
            .iter()
            .filter(|health| health.standing() != Standing::Admitted)
            .count();
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let share = (set.len() as f64 * self.policy.max_share) as usize;
        let limit = share.max(1).min(set.len().saturating_sub(1));
        for (index, reason) in suspects {
            if out >= limit {
                return;
            }
            if set[*index].standing() == Standing::Admitted {
                let time = set[*index].eject(now, &self.policy);
                review.ejected.push((*index, reason, time));
                out += 1;
            }
        }
    }
}

/// Those that failed too often in a row, unless the others fail as well: then it is the request or
/// something behind all of them, and taking some out would only load the rest.
fn consecutive(set: &[&Health], policy: &EjectionPolicy) -> Vec<(usize, &'static str)> {
    let over: Vec<_> = set
        .iter()
        .enumerate()
        .filter_map(|(index, health)| Some((index, health.runs_over(policy)?)))
        .collect();
    if over.is_empty() {
        return over;
    }
    let totals: Vec<_> = set.iter().map(|health| health.totals()).collect();
    let all = Totals::sum(&totals);
    over.into_iter()
        .filter(|(index, _)| all.without(totals[*index]).failing() < OTHERS_FAIL)
        .collect()
}

/// Those that fail often, and far more often than all the others together.
fn failing_share(set: &[&Health], policy: &EjectionPolicy) -> Vec<(usize, &'static str)> {
    let totals: Vec<_> = set.iter().map(|health| health.totals()).collect();
    let all = Totals::sum(&totals);
    let mut found: Vec<_> = totals
        .iter()
        .enumerate()
        .filter(|(_, one)| {
            let others = all.without(**one);
            policy.failing_share < 1.0
                && one.calls() >= policy.min_calls.into()
                && others.calls() >= policy.min_calls.into()
                && one.failing() >= policy.failing_share
                && one.failing() >= STANDS_OUT * others.failing()
        })
        .collect();
    found.sort_by(|a, b| b.1.failing().total_cmp(&a.1.failing()));
    found
        .into_iter()
        .map(|(index, _)| (index, "a failing share far above the others'"))
        .collect()
}

/// Those whose success rate is far below the mean of all (A50's first algorithm).
fn success_rate(set: &[&Health], policy: &EjectionPolicy) -> Vec<(usize, &'static str)> {
    let rates: Vec<_> = set
        .iter()
        .enumerate()
        .map(|(index, health)| (index, health.totals()))
        .filter(|(_, totals)| totals.calls() >= RATE_CALLS)
        .map(|(index, totals)| (index, 1.0 - totals.failing()))
        .collect();
    if rates.len() < RATE_INSTANCES || policy.success_rate_deviations <= 0.0 {
        return Vec::new();
    }
    #[allow(clippy::cast_precision_loss)]
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates
        .iter()
        .map(|(_, rate)| (rate - mean).powi(2))
        .sum::<f64>()
        / count;
    let threshold = mean - policy.success_rate_deviations * variance.sqrt();
    rates
        .into_iter()
        .filter(|(_, rate)| *rate < threshold.min(RATE_GOOD))
        .map(|(index, _)| (index, "a success rate far below the mean"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Bench {
        set: Vec<Health>,
        ejector: Ejector,
        policy: EjectionPolicy,
        now: Instant,
    }

    impl Bench {
        fn new(count: usize) -> Self {
            let policy = EjectionPolicy::default();
            Self {
                set: (0..count).map(|_| Health::default()).collect(),
                ejector: Ejector::new(policy.clone()),
                policy,
                now: Instant::now(),
            }
        }

        fn note(&self, index: usize, verdict: Verdict, times: u32) {
            for _ in 0..times {
                self.set[index].note(verdict, false, &self.policy);
            }
        }

        fn after(&mut self, passed: Duration) -> Review {
            self.now += passed;
            let set: Vec<_> = self.set.iter().collect();
            self.ejector.review(self.now, &set)
        }

        fn ejected(&mut self, passed: Duration) -> Vec<usize> {
            let review = self.after(passed);
            review.ejected.iter().map(|(index, ..)| *index).collect()
        }
    }

    #[test]
    fn failures_in_a_row_eject_even_one_of_two() {
        for verdict in [Verdict::Transport, Verdict::Status] {
            let mut bench = Bench::new(2);
            bench.note(0, Verdict::Success, 20);
            bench.note(1, verdict, 2);
            assert!(bench.ejected(Duration::ZERO).is_empty());
            bench.note(1, Verdict::Success, 1);
            bench.note(1, verdict, 2);
            assert!(
                bench.ejected(Duration::ZERO).is_empty(),
                "the run was broken"
            );
            bench.note(1, verdict, 3);
            assert_eq!(bench.ejected(Duration::ZERO), [1], "{verdict:?}");
        }
    }

    #[test]
    fn never_ejects_all_nor_more_than_the_share() {
        for (count, most) in [(1, 0), (2, 1), (3, 1), (5, 2), (10, 5)] {
            let mut bench = Bench::new(count);
            for index in 0..count {
                bench.note(index, Verdict::Success, 100);
                bench.note(index, Verdict::Transport, 9);
            }
            assert_eq!(bench.ejected(Duration::ZERO).len(), most, "of {count}");
        }
    }

    #[test]
    fn when_all_fail_alike_none_is_ejected() {
        let mut bench = Bench::new(5);
        for index in 0..5 {
            bench.note(index, Verdict::Status, 50);
        }
        assert!(bench.ejected(Duration::ZERO).is_empty());
        assert!(bench.ejected(SECOND).is_empty());
    }

    #[test]
    fn a_share_that_stands_out_ejects() {
        let mut bench = Bench::new(3);
        bench.after(Duration::ZERO);
        for _ in 0..10 {
            for index in 0..3 {
                bench.note(index, Verdict::Success, 2);
            }
            bench.note(2, Verdict::Status, 1);
        }
        assert_eq!(bench.ejected(SECOND), [2]);
    }

    #[test]
    fn a_share_that_all_have_does_not() {
        let mut bench = Bench::new(3);
        bench.after(Duration::ZERO);
        for index in 0..3 {
            for _ in 0..10 {
                bench.note(index, Verdict::Success, 2);
                bench.note(index, Verdict::Status, 1);
            }
        }
        assert!(bench.ejected(SECOND).is_empty());
    }

    #[test]
    fn shedding_load_counts_toward_the_share_only() {
        let mut bench = Bench::new(2);
        bench.note(0, Verdict::Success, 100);
        bench.note(1, Verdict::Overloaded, 100);
        assert!(bench.ejected(Duration::ZERO).is_empty());
        assert_eq!(bench.ejected(SECOND), [1]);
    }

    #[test]
    fn returns_by_a_probe_and_one_good_call_and_starts_slowly() {
        let mut bench = Bench::new(2);
        bench.note(0, Verdict::Success, 9);
        bench.note(1, Verdict::Transport, 3);
        assert_eq!(bench.ejected(Duration::ZERO), [1]);
        assert!(bench.after(2 * SECOND).probe.is_empty());
        assert_eq!(bench.after(SECOND).probe, [1]);
        assert!(!bench.set[1].take_trial(), "the probe is still out");
        bench.set[1].conclude(true);
        assert!(bench.after(Duration::ZERO).changed);
        assert!(bench.set[1].take_trial());
        assert!(!bench.set[1].take_trial(), "one call at a time");
        bench.set[1].note(Verdict::Success, true, &bench.policy);
        assert_eq!(bench.after(Duration::ZERO).admitted, [1]);
        let share = |passed| bench.set[1].slow_start_share(bench.now + passed, &bench.policy);
        assert!((share(Duration::ZERO) - SLOW_START_FLOOR).abs() < 1e-9);
        assert!((share(bench.policy.slow_start / 2) - 0.5).abs() < 1e-9);
        assert!((share(bench.policy.slow_start) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn every_repeat_takes_longer_up_to_the_ceiling_and_good_times_forgive() {
        let mut bench = Bench::new(2);
        let mut times = Vec::new();
        bench.note(0, Verdict::Success, 9);
        bench.note(1, Verdict::Transport, 3);
        let review = bench.after(Duration::ZERO);
        times.push(review.ejected[0].2);
        for _ in 0..30 {
            let until = bench.set[1].lock().until.unwrap();
            let wait = until - bench.now;
            assert_eq!(bench.after(wait).probe, [1]);
            bench.set[1].conclude(false);
            bench.after(Duration::ZERO);
            times.push(bench.set[1].lock().until.unwrap() - bench.now);
        }
        assert_eq!(times[..3], [3 * SECOND, 6 * SECOND, 9 * SECOND]);
        assert_eq!(times.last(), Some(&bench.policy.max_time));
        let until = bench.set[1].lock().until.unwrap();
        bench.after(until - bench.now);
        bench.set[1].conclude(true);
        bench.after(Duration::ZERO);
        assert!(bench.set[1].take_trial());
        bench.set[1].note(Verdict::Success, true, &bench.policy);
        bench.after(Duration::ZERO);
        let times = bench.set[1].lock().times;
        for _ in 0..25 {
            bench.after(SECOND);
        }
        assert_eq!(bench.set[1].lock().times, times - 2);
    }

    #[test]
    fn what_ends_after_the_ejection_says_nothing_more() {
        let mut bench = Bench::new(2);
        bench.note(0, Verdict::Success, 9);
        bench.note(1, Verdict::Transport, 3);
        bench.after(Duration::ZERO);
        bench.note(1, Verdict::Transport, 50);
        bench.after(3 * SECOND);
        bench.set[1].conclude(true);
        bench.after(Duration::ZERO);
        assert_eq!(bench.set[1].standing(), Standing::Probation);
    }

    #[test]
    fn a_new_connection_is_probed_at_once() {
        let mut bench = Bench::new(2);
        bench.note(0, Verdict::Success, 9);
        bench.note(1, Verdict::Transport, 3);
        assert_eq!(bench.ejected(Duration::ZERO), [1]);
        bench.set[1].reconnected(bench.now);
        assert!(bench.after(SECOND).probe.is_empty(), "connected before");
        bench.set[1].reconnected(bench.now);
        assert_eq!(bench.after(Duration::ZERO).probe, [1]);
        bench.set[1].postpone(bench.now + SECOND);
        assert!(bench.after(Duration::ZERO).probe.is_empty());
        assert_eq!(bench.after(SECOND).probe, [1]);
    }

    #[test]
    fn a_rate_far_below_the_mean_ejects_in_a_larger_set() {
        let mut bench = Bench::new(6);
        bench.policy.failing_share = 1.0;
        bench.ejector = Ejector::new(bench.policy.clone());
        bench.after(Duration::ZERO);
        for index in 0..6 {
            for _ in 0..10 {
                bench.note(index, Verdict::Success, 10);
                bench.note(index, Verdict::Status, u32::from(index == 3));
            }
        }
        assert_eq!(bench.ejected(SECOND), [3]);
    }
}

#[cfg(all(test, discovery_loom))]
mod loom_tests {
    use loom::{
        sync::{Arc, atomic::AtomicUsize},
        thread,
    };

    use super::*;

    /// An instance whose probe was answered: the next review puts it on probation.
    fn probed() -> Arc<Health> {
        let health = Arc::new(Health::default());
        health.set(Standing::Probing);
        health.conclude(true);
        health
    }

    #[test]
    fn a_probation_has_one_trial_however_calls_and_reviews_meet() {
        loom::model(|| {
            let health = probed();
            let trials = Arc::new(AtomicUsize::new(0));
            let calls: Vec<_> = (0..2)
                .map(|_| {
                    let (health, trials) = (Arc::clone(&health), Arc::clone(&trials));
                    thread::spawn(move || {
                        if health.take_trial() {
                            trials.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let ejector = Ejector::new(EjectionPolicy::default());
            ejector.bring_back(Instant::now(), &[&health], &mut Review::default());
            for call in calls {
                call.join().unwrap();
            }
            assert_eq!(health.standing(), Standing::Probation);
            let taken = trials.load(Ordering::Relaxed);
            let still = usize::from(health.take_trial());
            assert_eq!(taken + still, 1, "{taken} calls had the one trial");
        });
    }

    #[test]
    fn a_trial_that_ends_is_seen_by_a_review_and_leaves_no_other_behind() {
        for (verdict, standing) in [
            (Verdict::Success, Standing::Admitted),
            (Verdict::Transport, Standing::Ejected),
        ] {
            loom::model(move || {
                let policy = EjectionPolicy::default();
                let ejector = Ejector::new(policy.clone());
                let health = probed();
                let review = |health: &Health| {
                    ejector.bring_back(Instant::now(), &[health], &mut Review::default());
                };
                review(&health);
                let call = {
                    let health = Arc::clone(&health);
                    thread::spawn(move || {
                        assert!(health.take_trial());
                        assert!(health.note(verdict, true, &policy));
                    })
                };
                review(&health);
                call.join().unwrap();
                review(&health);
                assert_eq!(health.standing(), standing);
                assert!(!health.take_trial());
            });
        }
    }
}
