//! The metrics of the add service, read all through a row.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{sync::watch, time::sleep};

use crate::clock::Clock;

/// The series of the add service's `/metrics`.
pub(crate) struct Metrics(BTreeMap<String, f64>);

pub(crate) async fn metrics(client: &reqwest::Client, http: SocketAddr) -> Result<Metrics> {
    let text = client
        .get(format!("http://{http}/metrics"))
        .timeout(Duration::from_secs(2))
        .send()
        .await?
        .text()
        .await?;
    Metrics::parse(&text)
}

impl Metrics {
    /// Reads the text format of Prometheus.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        let mut all = BTreeMap::new();
        for (name, value) in pairs {
            let value = value
                .parse()
                .with_context(|| format!("metric {name}: {value}"))?;
            all.insert(name.to_owned(), value);
        }
        Ok(Self(all))
    }

    /// The sum of all series whose name and labels contain every part.
    fn sum(&self, parts: &[&str]) -> usize {
        let matching = self
            .0
            .iter()
            .filter(|(name, _)| parts.iter().all(|part| name.contains(part)));
        // Counters and gauges of this size are exact.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let sum = matching.map(|(_, value)| *value as usize).sum();
        sum
    }

    /// Endpoints in this state.
    fn endpoints(&self, state: &str) -> usize {
        self.sum(&["discovery_endpoints", &format!("state=\"{state}\"")])
    }

    pub(crate) fn ready(&self) -> usize {
        self.endpoints("ready")
    }

    pub(crate) fn ejected(&self) -> usize {
        self.endpoints("ejected")
    }

    pub(crate) fn down(&self) -> usize {
        self.endpoints("down")
    }

    fn attempts(&self, outcomes: &[&str]) -> usize {
        let of = |outcome: &&str| {
            let label = format!("outcome=\"{outcome}\"");
            self.sum(&["discovery_attempts_total", &label])
        };
        outcomes.iter().map(of).sum()
    }

    /// Calls that were made of the instances.
    pub(crate) fn calls(&self) -> usize {
        self.sum(&["discovery_calls_total"])
    }

    /// Attempts that were made for them.
    pub(crate) fn all_attempts(&self) -> usize {
        self.sum(&["discovery_attempts_total"])
    }

    /// Attempts that failed.
    pub(crate) fn bad_attempts(&self) -> usize {
        self.attempts(&["status", "broken", "timeout", "unprocessed"])
    }

    /// Attempts that ended with a status or with their connection.
    pub(crate) fn broken_attempts(&self) -> usize {
        self.attempts(&["status", "broken"])
    }

    /// Attempts without an answer in time.
    pub(crate) fn late_attempts(&self) -> usize {
        self.attempts(&["timeout"])
    }
}

/// The metrics of the add service at one moment of the row.
pub(crate) struct Sight {
    pub(crate) at: Duration,
    pub(crate) metrics: Metrics,
}

/// Time after which the add service's counters include the last call: a channel publishes them once a
/// second.
pub(crate) const PUBLISHED: Duration = Duration::from_millis(1_100);

/// Reads the metrics of the add service until `stopped`, and once more then.
pub(crate) async fn observe(
    client: reqwest::Client,
    http: SocketAddr,
    clock: Clock,
    stopped: watch::Receiver<bool>,
) -> Vec<Sight> {
    let mut seen = Vec::new();
    loop {
        let last = *stopped.borrow();
        if last {
            sleep(PUBLISHED).await;
        }
        // A failed read is skipped: the load shows whether the service works.
        if let Ok(metrics) = metrics(&client, http).await {
            let at = clock.begun.elapsed();
            seen.push(Sight { at, metrics });
        }
        if last {
            return seen;
        }
        sleep(Duration::from_millis(20)).await;
    }
}
