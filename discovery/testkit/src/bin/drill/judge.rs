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
mod tests {
    use super::*;

    const ALL_READY: &str = "discovery_endpoints{state=\"ready\"} 2\n";

    fn call(result: Result<&str, &str>) -> Call {
        Call {
            due: Duration::from_secs(1),
            latency: Duration::from_millis(2),
            result: result.map(str::to_owned).map_err(str::to_owned),
        }
    }

    fn sight(at: u64, metrics: &str) -> Sight {
        Sight {
            at: Duration::from_millis(at),
            metrics: Metrics::parse(metrics).unwrap(),
        }
    }

    fn complaints(demand: Demand, calls: &[Call], story: &Story, seen: &[Sight]) -> Vec<String> {
        let before = Metrics::parse(ALL_READY).unwrap();
        let evidence = Evidence {
            calls,
            story,
            before: &before,
            seen,
            poll: Duration::ZERO,
        };
        evidence.judge(demand).complaints
    }

    fn even() -> Vec<Call> {
        vec![call(Ok("one,two")); 100]
    }

    #[test]
    fn a_rotation_that_prefers_an_instance_is_uneven() {
        assert_eq!(uneven(&even()), None);
        assert_eq!(uneven(&[]), None);
        let mut calls = even();
        // One retry moves one call.
        calls.push(call(Ok("one,one")));
        assert_eq!(uneven(&calls), None);
        calls.push(call(Ok("one,one")));
        assert_eq!(
            uneven(&calls).unwrap(),
            "the rotation is uneven: {\"one\": 104, \"two\": 100}"
        );
    }

    #[test]
    fn connections_that_end_in_order_do_not_count_against_an_instance() {
        let story = Story {
            renewed: Some(4),
            ..Story::default()
        };
        let check = |story: &Story, metrics: &str| {
            let seen = [sight(10, ALL_READY), sight(30, metrics)];
            complaints(Demand::EvenRotation, &even(), story, &seen)
        };
        let unprocessed = "discovery_attempts_total{outcome=\"unprocessed\"} 3\n";
        assert_eq!(check(&story, unprocessed), [""; 0]);
        for (metrics, expected) in [
            (
                "discovery_attempts_total{outcome=\"broken\"} 3\n",
                "3 attempts counted against an instance",
            ),
            (
                "discovery_endpoints{state=\"down\"} 1\n",
                "an instance was down 30ms after the start",
            ),
            (
                "discovery_endpoints{state=\"ejected\"} 1\n",
                "an instance was ejected 30ms after the start",
            ),
        ] {
            assert_eq!(check(&story, metrics), [expected]);
        }
        // A short row on a busy machine, which stopped an instance.
        let late = "discovery_attempts_total{outcome=\"timeout\"} 9\n\
            discovery_endpoints{state=\"ejected\"} 1\n";
        assert_eq!(check(&story, late), [""; 0]);
        let none_ended = Story {
            renewed: Some(0),
            ..Story::default()
        };
        assert_eq!(
            check(&none_ended, ALL_READY),
            ["no call received the fault"]
        );
    }

    #[test]
    fn a_call_with_a_short_deadline_ends_with_504_and_ejects_no_instance() {
        let check = |short_deadline: Vec<Call>, metrics: &str| {
            let story = Story {
                short_deadline,
                ..Story::default()
            };
            complaints(Demand::NoEjection, &even(), &story, &[sight(30, metrics)])
        };
        let exceeded = call(Err("504: {\"err\":\"deadline\"}"));
        // Its attempts are unanswered ones.
        let unanswered = "discovery_attempts_total{outcome=\"timeout\"} 2\n";
        assert_eq!(check(vec![exceeded.clone()], unanswered), [""; 0]);
        let unavailable = call(Err("503: {}"));
        assert_eq!(
            check(vec![exceeded.clone(), unavailable], ALL_READY),
            ["a call with a short deadline ended with Err(\"503: {}\")"]
        );
        assert_eq!(
            check(vec![call(Ok("one,two"))], ALL_READY),
            ["a call with a short deadline ended with Ok(\"one,two\")"]
        );
        assert_eq!(
            check(Vec::new(), ALL_READY),
            ["no call had a short deadline"]
        );
        assert_eq!(
            check(vec![exceeded], "discovery_endpoints{state=\"ejected\"} 1\n"),
            ["an instance was ejected 30ms after the start"]
        );
    }

    #[test]
    fn a_useless_instance_has_to_be_ejected() {
        let story = Story {
            faulty: vec!["three".to_owned()],
            joins: true,
            counted: Some(5),
            ..Story::default()
        };
        let joined = "discovery_endpoints{state=\"ready\"} 3\n";
        let ejected = "discovery_endpoints{state=\"ready\"} 2\n\
            discovery_endpoints{state=\"ejected\"} 1\n";
        let check = |seen: &[Sight]| complaints(Demand::Ejection, &even(), &story, seen);
        assert_eq!(check(&[sight(30, joined), sight(50, ejected)]), [""; 0]);
        // It was ready for a shorter time than there is between two looks.
        assert_eq!(check(&[sight(30, ALL_READY), sight(50, ejected)]), [""; 0]);
        for kept in [joined, ALL_READY] {
            let seen = [sight(30, kept), sight(50, kept)];
            assert_eq!(check(&seen), ["the faulty instance was never ejected"]);
        }
    }

    #[test]
    fn retries_must_not_multiply_the_calls_of_failing_instances() {
        let story = Story {
            ended: Some(Duration::from_secs(2)),
            ..Story::default()
        };
        let calls = [call(Err("503: {\"err\":\"unavailable\"}"))];
        let check = |attempts: u32| {
            let metrics = format!(
                "discovery_calls_total{{outcome=\"failed\"}} 100\n\
                discovery_attempts_total{{outcome=\"status\"}} {attempts}\n"
            );
            complaints(Demand::FewRetries, &calls, &story, &[sight(30, &metrics)])
        };
        assert_eq!(check(120), [""; 0]);
        assert_eq!(check(121), ["121 attempts were made for 100 calls"]);
    }

    #[test]
    fn no_call_may_fail_unless_every_instance_is_dead() {
        let mut calls = even();
        calls.push(call(Err("503: {\"err\":\"none left\"}")));
        let story = Story {
            ended: Some(Duration::from_secs(2)),
            ..Story::default()
        };
        let seen = [sight(30, ALL_READY)];
        assert_eq!(complaints(Demand::None, &calls, &story, &seen).len(), 1);
        assert_eq!(complaints(Demand::Outage, &calls, &story, &seen), [""; 0]);
        calls.push(call(Err("504: {}")));
        assert_eq!(
            complaints(Demand::Outage, &calls, &story, &seen),
            ["not 503 with a reason: 504: {}"]
        );
    }
}
