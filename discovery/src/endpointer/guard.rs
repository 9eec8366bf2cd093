//! Reports the endpoints that are kept as a last resort, and probes them for as long as they are kept.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{
    endpoint::Endpoint,
    instance::Withdrawal,
    probe::{self, Health},
};

/// Interval between two probes of one endpoint.
const INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two probes of all endpoints together, so that the probes of a large set do not cost
/// more than its calls.
const SPACING: Duration = Duration::from_millis(2);
/// Time limit of a probe.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Probes in a row without a usable answer that end the protection. One may be lost with a connection.
const UNANSWERED: u32 = 2;
/// Time for which an instance without a health service is kept: its connection is the only sign of life.
const WITHOUT_HEALTH: Duration = Duration::from_secs(30);

/// Starts to probe these endpoints, beside `offered` instances that the registry still offers. One that
/// fails is marked, and `changed` is notified.
pub(super) fn start(endpoints: &[Arc<Endpoint>], offered: usize, changed: &Arc<Notify>) {
    report(endpoints, offered);
    let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    let interval = INTERVAL.max(SPACING.saturating_mul(count));
    for endpoint in endpoints {
        let first = interval.saturating_sub(INTERVAL).mul_f64(fastrand::f64());
        let guard = Guard {
            endpoint: Arc::downgrade(endpoint),
            changed: Arc::clone(changed),
            unanswered: 0,
        };
        tokio::spawn(guard.run(first, interval));
    }
}

fn report(protected: &[Arc<Endpoint>], offered: usize) {
    let count = |withdrawal| {
        let withdrawn = |e: &&Arc<Endpoint>| {
            let last_resort = e.last_resort();
            last_resort.is_some_and(|resort| resort.withdrawal() == withdrawal)
        };
        protected.iter().filter(withdrawn).count()
    };
    warn!(
        removed = count(Withdrawal::Removed),
        lost = count(Withdrawal::Lost),
        failing = count(Withdrawal::Failing),
        offered,
        "the registry offers far fewer instances at once; keeping the connected ones among the others as \
         a last resort while they report SERVING"
    );
}

struct Guard {
    endpoint: Weak<Endpoint>,
    changed: Arc<Notify>,
    /// Probes in a row without a usable answer.
    unanswered: u32,
}

impl Guard {
    /// Probes until the endpoint fails, is offered again, or is removed.
    async fn run(mut self, first: Duration, interval: Duration) {
        sleep(first).await;
        while let Some(endpoint) = self.endpoint.upgrade() {
            if let Some(reason) = self.probe(&endpoint).await {
                if let Some(last_resort) = endpoint.last_resort() {
                    last_resort.end(reason);
                }
                self.changed.notify_one();
                return;
            }
            drop(endpoint);
            sleep(interval).await;
        }
    }

    /// The reason why the endpoint must not be kept, or `None`.
    async fn probe(&mut self, endpoint: &Endpoint) -> Option<&'static str> {
        // An endpoint that is being connected again is judged by the result.
        let transport = endpoint.connection()?;
        let health = timeout(TIMEOUT, probe::health(&**transport)).await;
        match health.unwrap_or(Health::Unknown) {
            Health::Serving => {
                self.unanswered = 0;
                None
            }
            Health::NotServing => Some("its health service does not report SERVING"),
            Health::NoService => {
                self.unanswered = 0;
                let kept = endpoint.last_resort()?.since().elapsed();
                (kept >= WITHOUT_HEALTH).then_some("it has no health service")
            }
            Health::Unknown => {
                self.unanswered += 1;
                (self.unanswered >= UNANSWERED).then_some("its health service does not answer")
            }
        }
    }
}
