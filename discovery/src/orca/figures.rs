//! The weight of one endpoint, from its reports.
//!
//! Calls and the stream out of band note reports without a lock. The endpointer's task decides, at each
//! update, which weight is used: none in the blackout after the first report of a connection, and none
//! after the last report has expired.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    policy::{LoadReports, weight},
    report::LoadReport,
};

/// The weight that an endpoint's reports make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ReportedWeight {
    Usable(f64),
    /// Nothing is reported on this connection, or the blackout after the first report is not over.
    NotYetUsable,
    /// The last report of this connection has expired.
    Stale,
}

impl ReportedWeight {
    pub(crate) fn usable(self) -> Option<f64> {
        match self {
            Self::Usable(weight) => Some(weight),
            Self::NotYetUsable | Self::Stale => None,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Figures {
    born: Instant,
    /// True if reports in the trailers of calls count.
    per_call: AtomicBool,
    /// The penalty of failed calls, as `f32` bits.
    penalty: AtomicU32,
    /// The last report: its weight as `f32` bits in the upper half, its time in the lower half. Zero
    /// before the first.
    latest: AtomicU64,
    /// The time of the first report that the blackout counts from; zero before it.
    since: AtomicU32,
    /// The weight in use, as `f32` bits; zero if there is none.
    used: AtomicU32,
    /// The time at which the last report expired; zero if none has on this connection, or there is a later
    /// one.
    expired: AtomicU32,
    /// True once it was logged that the server does not report out of band.
    is_unsupported: AtomicBool,
}

impl Figures {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            born: now,
            per_call: AtomicBool::new(false),
            penalty: AtomicU32::new(0),
            latest: AtomicU64::new(0),
            since: AtomicU32::new(0),
            used: AtomicU32::new(0),
            expired: AtomicU32::new(0),
            is_unsupported: AtomicBool::new(false),
        }
    }

    /// The weight in use, or the reason why there is none.
    pub(super) fn reported(&self) -> ReportedWeight {
        let weight = f32::from_bits(self.used.load(Ordering::Relaxed));
        if weight > 0.0 {
            ReportedWeight::Usable(weight.into())
        } else if self.expired.load(Ordering::Relaxed) > 0 {
            ReportedWeight::Stale
        } else {
            ReportedWeight::NotYetUsable
        }
    }

    /// True if reports in the trailers of calls count.
    pub(super) fn is_per_call(&self) -> bool {
        self.per_call.load(Ordering::Relaxed)
    }

    /// Sets which reports count, and the penalty of failed calls.
    pub(super) fn configure(&self, policy: &LoadReports) {
        #[allow(clippy::cast_possible_truncation, reason = "a factor about 1")]
        let penalty = policy.error_penalty as f32;
        self.penalty.store(penalty.to_bits(), Ordering::Relaxed);
        let per_call = policy.out_of_band.is_none();
        self.per_call.store(per_call, Ordering::Relaxed);
    }

    /// Forgets the reports. Those in trailers no longer count.
    pub(super) fn stop(&self) {
        self.per_call.store(false, Ordering::Relaxed);
        self.forget();
    }

    /// Notes a report. True for the first of a connection.
    pub(super) fn note(&self, report: &LoadReport, now: Instant) -> bool {
        let penalty = f32::from_bits(self.penalty.load(Ordering::Relaxed));
        let Some(weight) = weight(report, penalty.into()) else {
            return false;
        };
        #[allow(clippy::cast_possible_truncation, reason = "24 bits are exact enough")]
        let weight = (weight as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
        let now = self.millis(now);
        let latest = u64::from(weight.to_bits()) << 32 | u64::from(now);
        self.latest.store(latest, Ordering::Relaxed);
        self.expired.store(0, Ordering::Relaxed);
        let first = self
            .since
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        first.is_ok()
    }

    /// Notes that the server does not report out of band. True for the first time.
    pub(super) fn note_unsupported(&self) -> bool {
        !self.is_unsupported.swap(true, Ordering::Relaxed)
    }

    /// Decides which weight is used. False if nothing was reported on this connection.
    pub(super) fn review(
        &self,
        now: Instant,
        policy: &LoadReports,
        connected_at: Option<Instant>,
    ) -> bool {
        // The reports of an earlier connection may be those of an earlier process.
        let is_earlier =
            |at: u32| connected_at.is_some_and(|connected| at < self.millis(connected));
        let latest = self.latest.load(Ordering::Relaxed);
        if latest == 0 {
            let expired = self.expired.load(Ordering::Relaxed);
            let is_stale = expired > 0 && !is_earlier(expired);
            if !is_stale {
                self.expired.store(0, Ordering::Relaxed);
            }
            return is_stale;
        }
        #[allow(clippy::cast_possible_truncation, reason = "the two halves")]
        let (weight, at) = ((latest >> 32) as u32, latest as u32);
        let passed = |at: u32| {
            let passed = self.millis(now).wrapping_sub(at);
            Duration::from_millis(passed.into())
        };
        let since = self.since.load(Ordering::Relaxed);
        if is_earlier(since) {
            self.forget();
            return false;
        }
        if passed(at) >= policy.expiration {
            self.forget();
            self.expired.store(self.millis(now), Ordering::Relaxed);
            return true;
        }
        let is_used = since != 0 && passed(since) >= policy.blackout;
        let used = if is_used { weight } else { 0 };
        self.used.store(used, Ordering::Relaxed);
        true
    }

    fn forget(&self) {
        self.used.store(0, Ordering::Relaxed);
        self.latest.store(0, Ordering::Relaxed);
        self.since.store(0, Ordering::Relaxed);
        self.expired.store(0, Ordering::Relaxed);
    }

    /// The time since the record began, in milliseconds and never zero. Wraps around after 49 days.
    fn millis(&self, at: Instant) -> u32 {
        let age = at.saturating_duration_since(self.born).as_millis();
        #[allow(clippy::cast_possible_truncation, reason = "wraps around")]
        let millis = age as u32;
        millis.max(1)
    }
}
