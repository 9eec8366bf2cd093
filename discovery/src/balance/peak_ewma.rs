//! Peak EWMA: of two endpoints drawn at random, the one with the lower expected latency.
//!
//! The cost of an endpoint is its smoothed latency times its number of calls in flight, the new one
//! included (Finagle's and Linkerd's peak EWMA). The smoothed latency rises to a peak at once and
//! decays with a time constant of 10 s. It decays without new calls too, so that an avoided endpoint
//! is tried again. A failure counts as 5 s. See
//! [`Stats::latency`](crate::endpoint::Stats::latency).
//!
//! An endpoint without a measured latency costs nothing while it has no call in flight, so that it
//! gets a first call (as in Finagle). Until that call has ended, its latency counts as 30 ms
//! (Linkerd's default), so that it does not get all calls.
//!
//! Calls in flight are divided by the weight relative to the average, and the first of the two
//! endpoints is drawn by weight. Weights range from 1 to 65535.

use std::{sync::Arc, time::Duration};

use super::{
    balancer::{Balancer, Picker},
    context::Context,
    two_choices::Pairs,
};
use crate::endpoint::Endpoint;

/// Assumed latency of an endpoint whose first call has not ended (Linkerd's default).
const DEFAULT_LATENCY: Duration = Duration::from_millis(30);

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma;

impl Balancer for PeakEwma {
    fn picker(&self, candidates: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        Box::new(Ready(Pairs::of(candidates)))
    }
}

struct Ready(Pairs);

impl Ready {
    fn cost(&self, index: usize, context: &Context) -> f64 {
        let stats = self.0.stats(index);
        let in_flight = stats.in_flight();
        let latency = match stats.latency(context.now) {
            Some(latency) => latency,
            None if in_flight == 0 => return 0.0,
            None => DEFAULT_LATENCY,
        };
        latency.as_secs_f64() * (1.0 + f64::from(in_flight) / self.0.relative(index))
    }
}

impl Picker for Ready {
    fn pick(&self, candidates: &[Arc<Endpoint>], context: &Context) -> usize {
        let (first, second) = self.0.draw(candidates.len(), context);
        if self.cost(second, context) < self.cost(first, context) {
            second
        } else {
            first
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;
    use crate::balance::testing::{endpoints, spread, weighted};

    const MS: Duration = Duration::from_millis(1);

    fn observe(endpoint: &Endpoint, latency: Duration, failed: bool) {
        endpoint.stats().observe(Instant::now(), latency, failed);
    }

    #[tokio::test(start_paused = true)]
    async fn picks_all_about_equally_often_without_latencies() {
        let set = endpoints(5);
        for count in spread(&*PeakEwma.picker(&set), &set, 10_000) {
            assert!((1_850..2_150).contains(&count), "{count} of 10000");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn follows_the_weights_while_latencies_are_equal() {
        let set = weighted(&[1, 3]);
        for endpoint in &set {
            observe(endpoint, 5 * MS, false);
        }
        let counts = spread(&*PeakEwma.picker(&set), &set, 10_000);
        assert!((2_350..2_650).contains(&counts[0]), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn avoids_a_slow_endpoint_until_its_latency_has_decayed() {
        let set = endpoints(2);
        let picker = PeakEwma.picker(&set);
        observe(&set[0], 300 * MS, false);
        observe(&set[1], 5 * MS, false);
        assert_eq!(spread(&*picker, &set, 100), [0, 100]);
        for _ in 0..45 {
            advance(1_000 * MS).await;
            observe(&set[1], 5 * MS, false);
        }
        // 300 ms decay below 5 ms in 45 s without a call.
        assert_eq!(spread(&*picker, &set, 100), [100, 0]);
        observe(&set[0], 300 * MS, false);
        assert_eq!(spread(&*picker, &set, 100), [0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_failure_counts_as_slow() {
        let set = endpoints(2);
        observe(&set[0], Duration::ZERO, true);
        observe(&set[1], 900 * MS, false);
        assert_eq!(spread(&*PeakEwma.picker(&set), &set, 100), [0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_without_latency_gets_one_call_at_a_time() {
        let set = endpoints(2);
        let picker = PeakEwma.picker(&set);
        observe(&set[0], MS, false);
        assert_eq!(spread(&*picker, &set, 100), [0, 100]);
        set[1].stats().begin();
        assert_eq!(spread(&*picker, &set, 100), [100, 0]);
        observe(&set[1], MS / 2, false);
        set[1].stats().end();
        assert_eq!(spread(&*picker, &set, 100), [0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_multiply_the_cost_of_a_fast_endpoint() {
        let set = endpoints(2);
        let picker = PeakEwma.picker(&set);
        observe(&set[0], 10 * MS, false);
        observe(&set[1], 35 * MS, false);
        for _ in 0..2 {
            set[0].stats().begin();
        }
        assert_eq!(spread(&*picker, &set, 100), [100, 0], "30 ms against 35 ms");
        set[0].stats().begin();
        assert_eq!(spread(&*picker, &set, 100), [0, 100], "40 ms against 35 ms");
    }
}
