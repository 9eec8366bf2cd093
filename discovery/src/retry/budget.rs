//! The retry budget: retries are paid for by calls that succeed, so that they never multiply an
//! outage.
//!
//! Every successful call deposits a share of a token and every retry or hedge takes one. Deposits
//! lose their worth over ten seconds (as in Finagle's and tower's budgets), so that a quiet hour
//! does not save up for a storm. A small reserve lets a client of few calls retry at all. Unlike
//! tower's, a failed call deposits nothing and the reserve refills slowly: while everything fails,
//! retries dry up (gRPC's retry throttling, proposal A6).

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// How much may be retried.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BudgetPolicy {
    /// Retries per successful call; 0 to 10. Default: 0.1, gRPC's example;
    /// Finagle and tower have 0.2 and count failed calls as well.
    pub share: f64,
    /// Retries allowed whatever came before; a tenth of it comes back every ten seconds.
    /// Default: 10, gRPC's example.
    pub reserve: u32,
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self {
            share: 0.1,
            reserve: 10,
        }
    }
}

/// Thousandths, so that a share of a token is a whole number.
const TOKEN: i64 = 1_000;
/// Saved-up deposits lose a tenth of their worth this often.
const TICK: Duration = Duration::from_secs(1);
const TICKS_TO_REFILL: i64 = 100;

/// A channel's account. All atomics; the time comes in.
#[derive(Debug)]
pub(crate) struct Budget {
    deposit: i64,
    reserve_limit: i64,
    saved: AtomicI64,
    reserve: AtomicI64,
    born: Instant,
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
            born: now,
            ticks: AtomicU64::new(0),
        }
    }

    /// A call has succeeded.
    pub(crate) fn deposit(&self, now: Instant) {
        self.age(now);
        self.saved.fetch_add(self.deposit, Ordering::Relaxed);
    }

    /// Takes a token for a retry, if there is one.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        self.age(now);
        take(&self.saved) || take(&self.reserve)
    }

    /// Applies the seconds that have passed; one caller a second does the work.
    fn age(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.born).as_secs() / TICK.as_secs();
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
        // After a hundred ticks nothing worth counting is left of what was saved.
        let ticks = i64::try_from(passed - seen)
            .unwrap_or(i64::MAX)
            .min(TICKS_TO_REFILL);
        let refill = self.reserve_limit * ticks / TICKS_TO_REFILL;
        // Neither closure ever declines.
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
    fn a_new_client_has_its_reserve() {
        let now = Instant::now();
        let budget = Budget::new(BudgetPolicy::default(), now);
        assert_eq!(withdrawals(&budget, now), 10);
        assert_eq!(withdrawals(&budget, now + Duration::from_secs(10)), 1);
        assert_eq!(withdrawals(&budget, now + Duration::from_secs(1_000)), 10);
    }

    #[test]
    fn success_pays_for_retries_and_is_forgotten() {
        let start = Instant::now();
        let budget = Budget::new(BudgetPolicy::default(), start);
        for _ in 0..1_000 {
            budget.deposit(start);
        }
        assert_eq!(withdrawals(&budget, start), 110);
        for _ in 0..1_000 {
            budget.deposit(start);
        }
        // 100 tokens at 0.9 a second for ten seconds, and one of the reserve.
        let later = withdrawals(&budget, start + Duration::from_secs(10));
        assert!((34..=37).contains(&later), "{later}");
    }

    #[test]
    fn an_outage_is_hardly_multiplied() {
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
}

#[cfg(all(test, discovery_loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn a_token_is_taken_once_and_a_second_passes_once() {
        loom::model(|| {
            let born = Instant::now();
            let policy = BudgetPolicy {
                share: 0.5,
                reserve: 1,
            };
            let budget = Arc::new(Budget::new(policy, born));
            budget.deposit(born);
            // A second later the half token saved is less, and the reserve as full as it can be.
            let now = born + Duration::from_secs(1);
            let other = {
                let budget = Arc::clone(&budget);
                thread::spawn(move || budget.withdraw(now))
            };
            budget.deposit(now);
            let taken = u32::from(budget.withdraw(now)) + u32::from(other.join().unwrap());
            let left =
                budget.saved.load(Ordering::Relaxed) + budget.reserve.load(Ordering::Relaxed);
            // What came in: the reserve, half a token aged at most once, another half, and at most
            // one refill of what was taken from the reserve before it.
            let most = TOKEN + TOKEN + TOKEN / 100;
            assert!(taken >= 1 && left >= 0, "{taken} taken, {left} left");
            assert!(
                i64::from(taken) * TOKEN + left <= most,
                "{taken} taken, {left} left"
            );
        });
    }
}
