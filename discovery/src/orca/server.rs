//! The load of a server: what it measures itself, and what the application sets.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::{sync::watch, time::Instant};

use super::{
    cpu,
    rates::{Rates, Sampler, Totals},
    report::LoadReport,
};

/// The load of a server, to report. Clones share it.
///
/// It counts the calls that pass its [layer](Self::layer) and their failures, and computes the rates and
/// the CPU share of the last second or more when they are read. Until the first second is over, they
/// are not reported. Figures that the application [sets](Self::update) replace them.
///
/// A call fails if its status is `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`
/// or `RESOURCE_EXHAUSTED`.
///
/// The [module](super) has an example.
#[derive(Clone, Debug)]
pub struct ServerLoad(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    born: Instant,
    calls: AtomicU64,
    errors: AtomicU64,
    /// The number of CPUs that are a utilization of 1; `None` if CPU time is not measured.
    cpus: Option<f64>,
    state: Mutex<State>,
    /// The time at which the current interval may end, in milliseconds since `born`.
    due: AtomicU64,
    /// The current report in the form of metadata.
    header: ArcSwapOption<HeaderValue>,
    ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    sampler: Sampler,
    rates: Rates,
    given: LoadReport,
}

impl ServerLoad {
    /// Reports the rates of calls, and what the application sets.
    #[must_use]
    pub fn new() -> Self {
        Self::measuring(None)
    }

    /// Also reports the CPU time of this process as a share of the CPUs that it may use. Only on Unix.
    #[must_use]
    pub fn of_process() -> Self {
        Self::measuring(Some(cpu::cpus()))
    }

    fn measuring(cpus: Option<f64>) -> Self {
        let born = Instant::now();
        let totals = Totals {
            cpu: cpus.and_then(|_| cpu::process_time()),
            ..Totals::default()
        };
        Self(Arc::new(Inner {
            born,
            calls: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            cpus,
            state: Mutex::new(State {
                sampler: Sampler::new(born, totals),
                rates: Rates::default(),
                given: LoadReport::default(),
            }),
            due: AtomicU64::new(millis(Sampler::INTERVAL)),
            header: ArcSwapOption::empty(),
            ended: watch::Sender::new(false),
        }))
    }

    /// Sets figures of the server, which all later reports have. A figure of zero is taken back.
    ///
    /// ```
    /// use discovery::orca::ServerLoad;
    ///
    /// let load = ServerLoad::new();
    /// load.update(|report| report.application_utilization = 0.75);
    /// assert_eq!(load.report().application_utilization, 0.75);
    /// ```
    pub fn update(&self, update: impl FnOnce(&mut LoadReport)) {
        let mut state = self.lock();
        update(&mut state.given);
        self.publish(&state);
    }

    /// The current report.
    #[must_use]
    pub fn report(&self) -> LoadReport {
        let mut state = self.lock();
        self.sample(&mut state, Instant::now());
        self.compose(&state)
    }

    /// Ends all streams out of band, now and in future. For a server that stops: each would last as long
    /// as its client keeps it open.
    pub fn end_streams(&self) {
        self.0.ended.send_replace(true);
    }

    /// True once the streams out of band must end.
    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.0.ended.subscribe()
    }

    pub(super) fn count_call(&self) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_error(&self) {
        self.0.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The current report as metadata; `None` if it has no figure. Without a lock, except once per
    /// interval for the call that ends it.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let now = Instant::now();
        if millis(now - self.0.born) >= self.0.due.load(Ordering::Relaxed)
            && let Ok(mut state) = self.0.state.try_lock()
        {
            self.sample(&mut state, now);
        }
        self.0.header.load().as_deref().cloned()
    }

    /// Ends the interval if it is long enough.
    fn sample(&self, state: &mut State, now: Instant) {
        let inner = &*self.0;
        let totals = Totals {
            calls: inner.calls.load(Ordering::Relaxed),
            errors: inner.errors.load(Ordering::Relaxed),
            cpu: inner.cpus.and_then(|_| cpu::process_time()),
        };
        if let Some(rates) = state.sampler.sample(now, totals) {
            state.rates = rates;
            let due = millis(now + Sampler::INTERVAL - inner.born);
            inner.due.store(due, Ordering::Relaxed);
            self.publish(state);
        }
    }

    fn publish(&self, state: &State) {
        let header = self.compose(state).to_header();
        self.0.header.store(header.map(Arc::new));
    }

    fn compose(&self, state: &State) -> LoadReport {
        let mut report = LoadReport {
            cpu_utilization: self.0.cpus.map_or(0.0, |cpus| state.rates.cpus / cpus),
            rps: state.rates.calls,
            eps: state.rates.errors,
            ..LoadReport::default()
        };
        report.replace(&state.given);
        report
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ServerLoad {
    fn default() -> Self {
        Self::new()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_have_the_rates_of_the_last_interval_and_what_was_set() {
        let load = ServerLoad::new();
        for _ in 0..30 {
            load.count_call();
        }
        load.count_error();
        assert_eq!(load.header(), None);
        load.update(|report| report.mem_utilization = 0.5);
        assert_eq!(
            load.report(),
            LoadReport {
                mem_utilization: 0.5,
                ..LoadReport::default()
            }
        );
        advance(2 * Sampler::INTERVAL).await;
        let seen = load.report();
        assert_eq!((seen.rps, seen.eps, seen.mem_utilization), (15.0, 0.5, 0.5));
        assert_eq!(seen.to_header(), load.header());
        advance(Sampler::INTERVAL).await;
        let idle = LoadReport {
            mem_utilization: 0.5,
            ..LoadReport::default()
        };
        assert_eq!(load.header(), idle.to_header());
    }
}
