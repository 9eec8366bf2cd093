//! The retry budget of a channel.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    error::InvalidSetting,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

/// The retry budget: limits retries and hedges to a share of the successful calls.
///
/// Without a limit, retries amplify an outage: with three attempts per call, instances that fail under
/// load receive three times the load.
///
/// Every successful call deposits a fraction of a token, and every retry or hedge takes one token.
/// Deposits decay over ten seconds (as in Finagle's and tower's budgets), so that a long time without
/// failures does not allow a burst of retries. A small reserve allows retries to a client with few
/// calls. Unlike in tower, a failed call deposits nothing, and the reserve refills slowly: if all calls
/// fail, retries nearly stop (as with gRPC's retry throttling, gRFC A6).
///
/// ```
/// use discovery::BudgetPolicy;
///
/// let policy = BudgetPolicy::default().with_share(0.2).with_reserve(5);
/// assert!(policy.validate().is_ok());
/// assert!(policy.with_share(-1.0).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BudgetPolicy {
    /// Retries per successful call, from 0 to 10. Default: 0.1, as in gRFC A6's example. Finagle and
    /// tower have 0.2, and count failed calls as well.
    pub share: f64,
    /// Number of retries that need no successful call before them. A tenth of the number is restored
    /// every ten seconds. Default: 10, as in gRFC A6's example.
    pub reserve: u32,
}

impl BudgetPolicy {
    /// Sets [`share`](Self::share).
    #[must_use]
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets [`reserve`](Self::reserve).
    #[must_use]
    pub fn with_reserve(mut self, retries: u32) -> Self {
        self.reserve = retries;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// If [`share`](Self::share) is not between 0 and 10.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        if (0.0..=10.0).contains(&self.share) {
            return Ok(());
        }
        Err(InvalidSetting::new(
            "retry budget share",
            self.share.to_string(),
            "must be between 0 and 10",
        ))
    }
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self {
            share: 0.1,
            reserve: 10,
        }
    }
}

/// Amounts are in thousandths of a token, so that a share of a token is an integer.
const TOKEN: i64 = 1_000;
/// Interval at which deposits decay by a tenth.
const TICK: Duration = Duration::from_secs(1);
/// Number of ticks in which an empty reserve is full again.
const TICKS_TO_REFILL: i64 = 100;

/// The retry budget of a channel. It takes no lock.
#[derive(Debug)]
pub(crate) struct Budget {
    deposit: i64,
    reserve_limit: i64,
    saved: AtomicI64,
    reserve: AtomicI64,
    created: Instant,
    ticks: AtomicU64,
}

impl Budget {
    pub(crate) fn new(policy: BudgetPolicy, now: Instant) -> Self {
        let reserve = i64::from(policy.reserve) * TOKEN;
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        let deposit = (policy.share * TOKEN as f64) as i64;
        Self {
            deposit,
            reserve_limit: reserve,
            saved: AtomicI64::new(0),
            reserve: AtomicI64::new(reserve),
            created: now,
            ticks: AtomicU64::new(0),
        }
    }

    /// Adds the share of a successful call.
    pub(crate) fn deposit(&self, now: Instant) {
        self.age(now);
        self.saved.fetch_add(self.deposit, Ordering::Relaxed);
    }

    /// Takes a token for a retry. False if there is none.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        self.age(now);
        take(&self.saved) || take(&self.reserve)
    }

    /// The retries that it allows now.
    pub(crate) fn tokens(&self, now: Instant) -> u32 {
        self.age(now);
        let tokens = |account: &AtomicI64| (account.load(Ordering::Relaxed) / TOKEN).max(0);
        let sum = tokens(&self.saved) + tokens(&self.reserve);
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    /// Applies decay and refill once per tick; one of the concurrent callers does it.
    fn age(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.created).as_secs() / TICK.as_secs();
        let seen = self.ticks.load(Ordering::Relaxed);
        if passed <= seen {
            return;
        }
        let claimed =
            self.ticks
                .compare_exchange(seen, passed, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        // After a hundred ticks, less than a 10 000th is left of a deposit.
        let ticks = i64::try_from(passed - seen)
            .unwrap_or(i64::MAX)
            .min(TICKS_TO_REFILL);
        let refill = self.reserve_limit * ticks / TICKS_TO_REFILL;
        // The closures always return a value.
        let _aged = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
                Some((0..ticks).fold(saved, |left, _| left * 9 / 10))
            });
        let _refilled = self
            .reserve
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some((left + refill).min(self.reserve_limit))
            });
    }
}

fn take(account: &AtomicI64) -> bool {
    account
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
            (tokens >= TOKEN).then_some(tokens - TOKEN)
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawals(budget: &Budget, now: Instant) -> usize {
        (0..100_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_new_client_has_the_reserve() {
        let now = Instant::now();
        let budget = Budget::new(BudgetPolicy::default(), now);
        assert_eq!(withdrawals(&budget, now), 10);
        assert_eq!(withdrawals(&budget, now + Duration::from_secs(10)), 1);
        assert_eq!(withdrawals(&budget, now + Duration::from_secs(1_000)), 10);
    }

    #[test]
    fn successful_calls_allow_retries_for_a_while() {
        let start = Instant::now();
        let budget = Budget::new(BudgetPolicy::default(), start);
        for _ in 0..1_000 {
            budget.deposit(start);
        }
        assert_eq!(withdrawals(&budget, start), 110);
        for _ in 0..1_000 {
            budget.deposit(start);
        }
        // 100 tokens, multiplied by 0.9 a second for ten seconds, and one of the reserve.
        let later = withdrawals(&budget, start + Duration::from_secs(10));
        assert!((34..=37).contains(&later), "{later}");
    }

    #[test]
    fn an_outage_is_not_amplified() {
        let start = Instant::now();
        let budget = Budget::new(BudgetPolicy::default(), start);
        let call = |second: u64| start + Duration::from_secs(second);
        for second in 0..60 {
            for _ in 0..100 {
                budget.deposit(call(second));
            }
        }
        let retries = (60..120)
            .flat_map(|second| (0..100).map(move |_| second))
            .filter(|second| budget.withdraw(call(*second)))
            .count();
        assert!(
            retries <= 6_000 / 10,
            "{retries} retries for 6000 failed calls"
        );
    }

    #[test]
    fn only_shares_from_0_to_10_are_valid() {
        for share in [0.0, 10.0] {
            assert!(BudgetPolicy::default().with_share(share).validate().is_ok());
        }
        for share in [-0.1, 10.1, f64::NAN, f64::INFINITY] {
            let error = BudgetPolicy::default().with_share(share).validate();
            let error = error.unwrap_err().to_string();
            let expected = format!("retry budget share is {share}: must be between 0 and 10");
            assert_eq!(error, expected);
        }
    }
}

#[cfg(all(test, discovery_loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn a_token_is_taken_once_and_a_tick_is_applied_once() {
        loom::model(|| {
            let created = Instant::now();
            let policy = BudgetPolicy {
                share: 0.5,
                reserve: 1,
            };
            let budget = Arc::new(Budget::new(policy, created));
            budget.deposit(created);
            // A second later the deposit of half a token has decayed, and the reserve is full.
            let now = created + Duration::from_secs(1);
            let other = {
                let budget = Arc::clone(&budget);
                thread::spawn(move || budget.withdraw(now))
            };
            budget.deposit(now);
            let taken = u32::from(budget.withdraw(now)) + u32::from(other.join().unwrap());
            let left =
                budget.saved.load(Ordering::Relaxed) + budget.reserve.load(Ordering::Relaxed);
            // The sum of all income: the reserve, two deposits of half a token, and at most one
            // refill of what was taken from the reserve before it.
            let most = TOKEN + TOKEN + TOKEN / 100;
            assert!(taken >= 1 && left >= 0, "{taken} taken, {left} left");
            assert!(
                i64::from(taken) * TOKEN + left <= most,
                "{taken} taken, {left} left"
            );
        });
    }
}
