//! The reports of one endpoint: its figures, and the stream out of band that follows its connection.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use tokio::{sync::Notify, time::Instant};
use tracing::debug;

use super::{figures::Figures, policy::LoadReports, report::LoadReport, watch::Watch};
use crate::{connection::Transport, error::chain, instance::Instance};

/// What an update needs to know of the endpoint.
pub(crate) struct Follow<'a> {
    pub(crate) now: Instant,
    pub(crate) policy: &'a LoadReports,
    pub(crate) instance: &'a Instance,
    /// The time at which the current connection was made.
    pub(crate) connected_at: Option<Instant>,
    pub(crate) transport: Option<Arc<Box<dyn Transport>>>,
    /// Notified of the first report.
    pub(crate) changed: &'a Arc<Notify>,
}

/// The weight that an endpoint's reports make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ReportedWeight {
    Usable(f64),
    /// Nothing is reported on this connection, or the blackout after the first report is not over.
    NotYetUsable,
    /// The last report of this connection has expired.
    Stale,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct LoadRecord {
    figures: Arc<Figures>,
    /// The stream out of band, if that is where reports come from.
    watch: Mutex<Option<Watch>>,
}

<<<<<<< HEAD
impl LoadRecord {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            figures: Arc::new(Figures::new(now)),
=======
/// The part that reports are noted in.
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

impl LoadRecord {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            figures: Arc::new(Figures {
                born: now,
                per_call: AtomicBool::new(false),
                penalty: AtomicU32::new(0),
                latest: AtomicU64::new(0),
                since: AtomicU32::new(0),
                used: AtomicU32::new(0),
                expired: AtomicU32::new(0),
                is_unsupported: AtomicBool::new(false),
            }),
>>>>>>> metrics
            watch: Mutex::new(None),
        }
    }

    /// The weight in use.
    pub(crate) fn weight(&self) -> Option<f64> {
<<<<<<< HEAD
        self.figures.weight()
=======
        match self.reported() {
            ReportedWeight::Usable(weight) => Some(weight),
            ReportedWeight::NotYetUsable | ReportedWeight::Stale => None,
        }
    }

    /// The weight in use, or the reason why there is none.
    pub(crate) fn reported(&self) -> ReportedWeight {
        let weight = f32::from_bits(self.figures.used.load(Ordering::Relaxed));
        if weight > 0.0 {
            ReportedWeight::Usable(weight.into())
        } else if self.figures.expired.load(Ordering::Relaxed) > 0 {
            ReportedWeight::Stale
        } else {
            ReportedWeight::NotYetUsable
        }
>>>>>>> metrics
    }

    /// Notes the report in a call's trailers, if there is one and it counts. True for the first report
    /// of a connection.
    pub(crate) fn note_trailers(&self, trailers: &HeaderMap, now: Instant) -> bool {
        if !self.figures.is_per_call() {
            return false;
        }
        match LoadReport::from_trailers(trailers) {
            Ok(None) => false,
            Ok(Some(report)) => self.figures.note(&report, now),
            Err(error) => {
                debug!("{}", chain(&error));
                false
            }
        }
    }

    /// Decides which weight is used, and follows the connection. True if a report is known or has expired, so
    /// that the weight may change with the time.
    pub(crate) fn follow(&self, follow: &Follow<'_>) -> bool {
        let figures = &self.figures;
        let policy = follow.policy;
        figures.configure(policy);
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        match (policy.out_of_band, &follow.transport) {
            (Some(period), Some(transport)) => {
                let is_same = |watch: &Watch| watch.is_of(transport, period);
                if !watch.as_ref().is_some_and(is_same) {
                    let changed = Arc::clone(follow.changed);
                    *watch = Some(Watch::start(
                        Arc::clone(transport),
                        period,
                        follow.instance.to_string(),
                        Arc::clone(figures),
                        changed,
                    ));
                }
            }
            _ => *watch = None,
        }
        drop(watch);
        figures.review(follow.now, policy, follow.connected_at)
    }

    /// Stops reading reports: another balancer is in use.
    pub(crate) fn stop(&self) {
        self.figures.stop();
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

<<<<<<< HEAD
=======
impl Figures {
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
    fn review(&self, now: Instant, policy: &LoadReports, connected_at: Option<Instant>) -> bool {
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

>>>>>>> metrics
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn report(rps: f64) -> LoadReport {
        LoadReport::new().with_rps(rps).with_cpu_utilization(0.5)
    }

    struct Bench {
        record: LoadRecord,
        born: Instant,
        connected_at: Option<Instant>,
    }

    impl Bench {
        fn new() -> Self {
            let born = Instant::now();
            Self {
                record: LoadRecord::new(born),
                born,
                connected_at: Some(born),
            }
        }

        /// The weight in use after this many seconds.
        fn weight(&self, after: u32) -> Option<f64> {
            let policy = LoadReports::default()
                .with_blackout(10 * SECOND)
                .with_expiration(60 * SECOND);
            let instance = Instance::new("127.0.0.1", 1).unwrap();
            self.record.follow(&Follow {
                now: self.born + after * SECOND,
                policy: &policy,
                instance: &instance,
                connected_at: self.connected_at,
                transport: None,
                changed: &Arc::default(),
            });
            self.record.weight()
        }

        fn note(&self, after: u32, rps: f64) -> bool {
            let now = self.born + after * SECOND;
            self.record.figures.note(&report(rps), now)
        }
    }

    #[test]
    fn a_weight_is_used_after_the_blackout_until_it_expires() {
        let bench = Bench::new();
        assert_eq!(bench.weight(1), None);
        assert!(bench.note(1, 10.0));
        assert!(!bench.note(5, 20.0));
        assert_eq!(bench.weight(10), None);
        assert_eq!(bench.weight(11), Some(40.0));
        assert!(!bench.note(30, 30.0));
        assert_eq!(bench.weight(89), Some(60.0));
        assert_eq!(bench.weight(90), None);
        // The blackout begins again.
        assert!(bench.note(100, 10.0));
        assert_eq!(bench.weight(109), None);
        assert_eq!(bench.weight(110), Some(20.0));
    }

    #[test]
    fn a_weight_is_stale_from_its_expiry_until_a_report_or_a_new_connection() {
        let mut bench = Bench::new();
        let seen = |bench: &Bench, after: u32| {
            bench.weight(after);
            bench.record.reported()
        };
        assert_eq!(seen(&bench, 0), ReportedWeight::NotYetUsable);
        bench.note(1, 10.0);
        assert_eq!(seen(&bench, 5), ReportedWeight::NotYetUsable);
        assert_eq!(seen(&bench, 11), ReportedWeight::Usable(20.0));
        for after in [61, 70] {
            assert_eq!(seen(&bench, after), ReportedWeight::Stale, "{after}");
        }
        bench.note(80, 10.0);
        assert_eq!(seen(&bench, 81), ReportedWeight::NotYetUsable);
        assert_eq!(seen(&bench, 140), ReportedWeight::Stale);
        bench.connected_at = Some(bench.born + 150 * SECOND);
        assert_eq!(seen(&bench, 150), ReportedWeight::NotYetUsable);
    }

    #[test]
    fn a_new_connection_begins_with_a_blackout() {
        let mut bench = Bench::new();
        bench.weight(0);
        bench.note(1, 10.0);
        assert_eq!(bench.weight(20), Some(20.0));
        bench.connected_at = Some(bench.born + 30 * SECOND);
        assert_eq!(bench.weight(30), None);
        assert!(bench.note(31, 15.0));
        assert_eq!(bench.weight(40), None);
        assert_eq!(bench.weight(41), Some(30.0));
    }

    #[test]
    fn trailers_count_only_where_they_are_wanted() {
        let bench = Bench::new();
        let mut trailers = HeaderMap::new();
        let header = report(10.0).to_header().unwrap();
        trailers.insert(super::super::report::HEADER, header);
        assert!(!bench.record.note_trailers(&trailers, bench.born));
        bench.weight(0);
        assert!(bench.record.note_trailers(&trailers, bench.born + SECOND));
        assert_eq!(bench.weight(11), Some(20.0));
        bench.record.stop();
        assert_eq!(bench.record.weight(), None);
        assert!(!bench.record.note_trailers(&trailers, bench.born));
    }
}
