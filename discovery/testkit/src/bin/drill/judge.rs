//! The requirements of a row, and its results on the side of the callers.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    faults::Story,
    load::Call,
    observe::{Metrics, Sight},
};

/// The 99th percentile is required only if one call in a hundred is more than the calls in flight when a
/// fault starts. An even rotation, fast refusals and answers in time are required only then, too: short
/// rows run on busy machines, which stop a process for longer than a call takes.
const ENOUGH_CALLS: usize = 8_000;
const P99: Duration = Duration::from_millis(50);
/// Maximum latency of a refused call, with a margin for a busy machine.
const FAST: Duration = Duration::from_millis(100);
/// The time for which calls may fail after the first instance is back and can be seen in the registry.
const BACK: Duration = Duration::from_secs(1);
/// Maximum number of attempts per call while every instance fails: the retry budget's share and, in a short
/// row, its reserve.
const ATTEMPTS: f64 = 1.2;
/// Maximum difference between two instances in an even rotation, as a share of the mean. An instance
/// misses a turn while its connection is replaced.
const UNEVEN: f64 = 0.02;

/// The requirement of a row beside those of all rows. In all rows but [`Outage`](Self::Outage) and
/// [`FewRetries`](Self::FewRetries), no call may fail, and 99 of 100 are answered within 50 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    None,
    /// While all instances are dead, every call is refused at once with 503 and a reason. One second
    /// after the first instance is back, no call may fail.
    Outage,
    /// As in an outage, and retries do not multiply the calls that the failing instances receive.
    FewRetries,
    /// The faulty instance is ejected.
    Ejection,
    /// The rotation stays even, no attempt fails, and no instance is ejected.
    EvenRotation,
    /// Calls with a short deadline end with 504, and no instance is ejected.
    NoEjection,
}

/// The observations of a row.
pub(crate) struct Evidence<'a> {
    pub(crate) calls: &'a [Call],
    pub(crate) story: &'a Story,
    /// The metrics before the load.
    pub(crate) before: &'a Metrics,
    pub(crate) seen: &'a [Sight],
    /// The time after which the registry shows a change, if it is polled.
    pub(crate) poll: Duration,
}

/// The results of a row on the side of the callers.
pub(crate) struct Outcome {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) worst: Duration,
    /// Calls and attempts that faulty instances received during the fault.
    pub(crate) faulty_calls: Option<usize>,
    /// Time from the start of the fault until the client stopped using an instance.
    pub(crate) noticed: Option<Duration>,
    /// Time from the end of the fault to the first call that a recovered instance served.
    pub(crate) recovered: Option<Duration>,
    /// Time from the start of the fault until the due time of the last call that the fault affected: that
    /// failed, or took longer than 50 ms.
    pub(crate) affected: Option<Duration>,
    /// The requirements that were not met.
    pub(crate) complaints: Vec<String>,
}

impl Evidence<'_> {
    pub(crate) fn judge(&self, demand: Demand) -> Outcome {
        let mut latencies: Vec<_> = self.calls.iter().map(|call| call.latency).collect();
        latencies.sort();
        let percentile = |share: f64| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss
            )]
            let index = (latencies.len() as f64 * share) as usize;
            latencies.get(index.min(latencies.len().saturating_sub(1)))
        };
        let failures: Vec<_> = self.calls.iter().filter(|c| c.result.is_err()).collect();
        let mut outcome = Outcome {
            calls: self.calls.len(),
            failed: failures.len(),
            p50: percentile(0.5).copied().unwrap_or_default(),
            p99: percentile(0.99).copied().unwrap_or_default(),
            worst: latencies.last().copied().unwrap_or_default(),
            faulty_calls: self.faulty_calls(),
            noticed: self.noticed(),
            recovered: self.recovered(),
            affected: self.affected(),
            complaints: Vec::new(),
        };
        let mut complaints = match demand {
            Demand::Outage | Demand::FewRetries => self.outage(&failures),
            _ => every_call_answered(&failures, &outcome),
        };
        match demand {
            Demand::Ejection if outcome.noticed.is_none() => {
                complaints.push("the faulty instance was never ejected".to_owned());
            }
            Demand::EvenRotation => {
                let strict = outcome.calls >= ENOUGH_CALLS;
                if strict {
                    complaints.extend(uneven(self.calls));
                }
                complaints.extend(self.blamed(strict));
                if strict || self.growth(Metrics::late_attempts) == 0 {
                    complaints.extend(self.ejected());
                }
            }
            Demand::FewRetries => complaints.extend(self.multiplied()),
            Demand::NoEjection => {
                complaints.extend(self.short_deadline());
                complaints.extend(self.ejected());
            }
            _ => {}
        }
        if self.story.counted == Some(0) || self.story.renewed == Some(0) {
            complaints.push("no call received the fault".to_owned());
        }
        outcome.complaints = complaints;
        outcome
    }

    fn faulty_calls(&self) -> Option<usize> {
        let Story { began, ended, .. } = *self.story;
        let served = self
            .calls
            .iter()
            .filter(|call| call.due >= began && ended.is_none_or(|end| call.due < end))
            .filter_map(|call| call.result.as_ref().ok())
            .flat_map(|instances| instances.split(','))
            .filter(|id| self.story.faulty.iter().any(|faulty| faulty == id))
            .count();
        let bad_attempts = self.growth(Metrics::bad_attempts);
        self.story
            .counted
            .or_else(|| (!self.story.faulty.is_empty()).then(|| served + bad_attempts))
    }

    fn noticed(&self) -> Option<Duration> {
        let (story, ready_before) = (self.story, self.before.ready());
        if story.faulty.is_empty() {
            return None;
        }
        // A faulty instance that joined is noticed when it is taken out again.
        let most = ready_before + usize::from(story.joins);
        let mut joined = !story.joins;
        let mut sights = self.seen.iter().filter(|sight| sight.at >= story.began);
        let noticed = sights.find(|sight| {
            joined |= sight.metrics.ready() == most || sight.metrics.ejected() > 0;
            joined && sight.metrics.ready() < most
        })?;
        Some(noticed.at.saturating_sub(story.began))
    }

    fn recovered(&self) -> Option<Duration> {
        let ended = self.story.ended?;
        let faulty = &self.story.faulty;
        let cured = |call: &&Call| {
            call.due >= ended
                && call.result.as_ref().is_ok_and(|instances| {
                    faulty.is_empty() || faulty.iter().any(|id| instances.contains(&**id))
                })
        };
        Some(self.calls.iter().find(cured)?.due.saturating_sub(ended))
    }

    fn affected(&self) -> Option<Duration> {
        let Story { began, ended, .. } = *self.story;
        let last = self.calls.iter().rfind(|call| {
            let during = call.due >= began && ended.is_none_or(|end| call.due < end);
            during && (call.result.is_err() || call.latency > P99)
        })?;
        Some(last.due.saturating_sub(began))
    }

    /// The growth of a counter in the row.
    fn growth(&self, counter: impl Fn(&Metrics) -> usize) -> usize {
        let last = self.seen.last().map(|last| counter(&last.metrics));
        last.unwrap_or(0).saturating_sub(counter(self.before))
    }

    /// The attempts that a server or a connection failed, and if `strict`, those without an answer in time.
    fn blamed(&self, strict: bool) -> Option<String> {
        let late = if strict {
            self.growth(Metrics::late_attempts)
        } else {
            0
        };
        let blamed = self.growth(Metrics::broken_attempts) + late;
        let down = self.seen.iter().find(|sight| sight.metrics.down() > 0);
        if blamed > 0 {
            Some(format!("{blamed} attempts counted against an instance"))
        } else {
            let at = down?.at;
            Some(format!("an instance was down {at:?} after the start"))
        }
    }

    fn ejected(&self) -> Option<String> {
        let sight = self.seen.iter().find(|sight| sight.metrics.ejected() > 0)?;
        Some(format!(
            "an instance was ejected {:?} after the start",
            sight.at
        ))
    }

    fn multiplied(&self) -> Option<String> {
        let (calls, attempts) = (
            self.growth(Metrics::calls),
            self.growth(Metrics::all_attempts),
        );
        // Numbers of calls are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let multiplied = attempts as f64 > calls as f64 * ATTEMPTS;
        multiplied.then(|| format!("{attempts} attempts were made for {calls} calls"))
    }

    fn short_deadline(&self) -> Option<String> {
        let short = &self.story.short_deadline;
        if short.is_empty() {
            return Some("no call had a short deadline".to_owned());
        }
        let other = short.iter().find(|call| {
            let exceeded = |reason: &String| reason.starts_with("504: ");
            !call.result.as_ref().is_err_and(exceeded)
        })?;
        Some(format!(
            "a call with a short deadline ended with {:?}",
            other.result
        ))
    }

    fn outage(&self, failures: &[&Call]) -> Vec<String> {
        let after = BACK + self.poll;
        let back = self.story.ended.unwrap_or_default() + after;
        let mut complaints = Vec::new();
        for call in failures {
            let Err(reason) = &call.result else { continue };
            let complaint = if !reason.starts_with("503: {\"err\":\"") {
                format!("not 503 with a reason: {reason}")
            } else if call.latency > FAST && self.calls.len() >= ENOUGH_CALLS {
                format!("refused only after {:?}: {reason}", call.latency)
            } else if call.due + call.latency < self.story.began {
                format!("failed before the fault: {reason}")
            } else if call.due >= back {
                format!(
                    "failed {:?} after the first instance was back: {reason}",
                    call.due.saturating_sub(back) + after
                )
            } else {
                continue;
            };
            complaints.push(complaint);
        }
        if failures.is_empty() {
            complaints.push("no call received the fault".to_owned());
        }
        complaints.truncate(5);
        complaints
    }
}

fn every_call_answered(failures: &[&Call], outcome: &Outcome) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Some(first) = failures.first() {
        complaints.push(format!(
            "{} calls failed; the first, due {:?} after the start: {:?}",
            failures.len(),
            first.due,
            first.result
        ));
    }
    if outcome.p99 > P99 && outcome.calls >= ENOUGH_CALLS {
        complaints.push(format!("p99 is {:?}", outcome.p99));
    }
    complaints
}

/// The instances that served most and least, if these differ by more than the limit.
fn uneven(calls: &[Call]) -> Option<String> {
    let mut served: BTreeMap<&str, usize> = BTreeMap::new();
    let answered = calls.iter().filter_map(|call| call.result.as_ref().ok());
    for id in answered.flat_map(|instances| instances.split(',')) {
        *served.entry(id).or_default() += 1;
    }
    let (least, most) = (served.values().min()?, served.values().max()?);
    let mean = served.values().sum::<usize>() / served.len();
    // Numbers of calls are far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let uneven = (most - least) as f64 > mean as f64 * UNEVEN;
    uneven.then(|| format!("the rotation is uneven: {served:?}"))
}

#[cfg(test)]
mod tests;
