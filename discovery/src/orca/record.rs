//! The reports of one endpoint: its figures, and the stream out of band that follows its connection.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use tokio::{sync::Notify, time::Instant};
use tracing::debug;

use super::{
    figures::{Figures, ReportedWeight},
    policy::LoadReports,
    report::LoadReport,
    watch::Watch,
};
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

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct LoadRecord {
    figures: Arc<Figures>,
    /// The stream out of band, if that is where reports come from.
    watch: Mutex<Option<Watch>>,
}

impl LoadRecord {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            figures: Arc::new(Figures::new(now)),
            watch: Mutex::new(None),
        }
    }

    /// The weight in use.
    pub(crate) fn weight(&self) -> Option<f64> {
        self.figures.reported().usable()
    }

    /// The weight in use, or the reason why there is none.
    pub(crate) fn reported(&self) -> ReportedWeight {
        self.figures.reported()
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
