//! Rates of a server, from counters that are read at intervals. The time is a parameter.

use std::time::Duration;

use tokio::time::Instant;

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) calls: u64,
    pub(super) errors: u64,
    /// `None` if it is not measured.
    pub(super) cpu: Option<Duration>,
}

/// What the server did in the last interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Calls a second.
    pub(super) calls: f64,
    /// Failed calls a second.
    pub(super) errors: f64,
    /// CPUs in use.
    pub(super) cpus: f64,
}

/// The counters at the beginning of the current interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    at: Instant,
    before: Totals,
}

impl Sampler {
    /// The shortest interval. A report is as old as this at most, and not as noisy as a single call.
    pub(super) const INTERVAL: Duration = Duration::from_secs(1);

    pub(super) fn new(now: Instant, totals: Totals) -> Self {
        Self {
            at: now,
            before: totals,
        }
    }

    /// The rates of the interval that ends now; `None` if it is too short to end.
    pub(super) fn sample(&mut self, now: Instant, totals: Totals) -> Option<Rates> {
        let passed = now.saturating_duration_since(self.at);
        if passed < Self::INTERVAL {
            return None;
        }
        let before = self.before;
        *self = Self::new(now, totals);
        let seconds = passed.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "calls of one interval")]
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let cpu = totals.cpu.zip(before.cpu);
        let cpu = cpu.map_or(Duration::ZERO, |(now, before)| now.saturating_sub(before));
        Some(Rates {
            calls: rate(totals.calls, before.calls),
            errors: rate(totals.errors, before.errors),
            cpus: cpu.as_secs_f64() / seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_interval() {
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let totals = |calls, errors, millis| Totals {
            calls,
            errors,
            cpu: Some(Duration::from_millis(millis)),
        };
        let mut sampler = Sampler::new(begin, totals(10, 0, 100));
        assert_eq!(sampler.sample(begin + second / 2, totals(20, 0, 200)), None);
        let rates = |calls, errors, cpus| {
            Some(Rates {
                calls,
                errors,
                cpus,
            })
        };
        let after = begin + 2 * second;
        assert_eq!(
            sampler.sample(after, totals(30, 4, 1_100)),
            rates(10.0, 2.0, 0.5)
        );
        let idle = after + 10 * second;
        assert_eq!(
            sampler.sample(idle, totals(30, 4, 1_100)),
            rates(0.0, 0.0, 0.0)
        );
    }
}
