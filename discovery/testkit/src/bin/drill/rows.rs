//! The rows of the drill: the fault and the requirements of each.

use std::{future::Future, pin::Pin, time::Duration};

use anyhow::Result;
use serde_json::json;
use testkit::faulty::Fault as Wire;
use tokio::{sync::watch, time::sleep};

use crate::{
    env::{self, Env, Metrics},
    faults::{self, Clock, Story},
    load::{Call, Load},
    network,
};

/// The 99th percentile is required only if one call in a hundred is more than the calls in flight when a
/// fault starts.
const ENOUGH_CALLS: usize = 8_000;
const P99: Duration = Duration::from_millis(50);
/// Maximum latency of a refused call, with a margin for a busy machine.
const FAST: Duration = Duration::from_millis(100);
/// The time for which calls may fail after the first instance is back.
const BACK: Duration = Duration::from_secs(1);

/// One row.
pub(crate) struct Row {
    pub(crate) number: &'static str,
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    kind: Kind,
}

enum Kind {
    RollingRestart,
    Kill(usize),
    Hang(usize),
    Faulty(&'static str),
    Flap,
    ConsulHangs,
    ConsulRestarts { keeps_data: bool },
    Vanish { crashes: bool },
    AllDead,
    Scale,
    Wire(Wire),
}

macro_rules! rows {
    ($($number:literal $name:literal $kind:expr => $what:literal,)*) => {
        pub(crate) const ROWS: &[Row] = &[$(Row { number: $number, name: $name, what: $what, kind: $kind },)*];
    };
}

rows! {
    "1" "rolling-restart" Kind::RollingRestart => "each instance is ended by SIGTERM and restarted, one after another",
    "2a" "kill-1" Kind::Kill(1) => "kill -9 of one of five",
    "2b" "kill-3" Kind::Kill(3) => "kill -9 of three of five at the same moment",
    "3a" "hang-1" Kind::Hang(1) => "SIGSTOP of one of five, then SIGCONT",
    "3b" "hang-2" Kind::Hang(2) => "SIGSTOP of two of five, then SIGCONT",
    "4" "slow" Kind::Faulty("latency=300ms,rate=1") => "a sixth instance that takes 300 ms for every call",
    "5a" "unavailable" Kind::Faulty("error=unavailable,rate=1") => "a sixth instance that answers UNAVAILABLE to every call",
    "5b" "internal-30" Kind::Faulty("error=internal,rate=0.3") => "a sixth instance that answers INTERNAL to 30 % of its calls",
    "6" "flap" Kind::Flap => "one instance crashes and restarts every two seconds",
    "7a" "consul-hangs" Kind::ConsulHangs => "SIGSTOP of Consul, then SIGCONT",
    "7b" "consul-empty" Kind::ConsulRestarts { keeps_data: false } => "Consul is killed and restarts empty",
    "7c" "consul-critical" Kind::ConsulRestarts { keeps_data: true } => "Consul is killed and restarts with every check critical",
    "8" "black-hole" Kind::Vanish { crashes: false } => "a sixth instance whose host's packets are dropped in both directions",
    "9" "all-dead" Kind::AllDead => "all five are killed; one is restarted later",
    "10" "scale" Kind::Scale => "from 5 instances to 50 and back to 3",
    "11a" "reset" Kind::Wire(Wire::ResetInMessage) => "a sixth instance resets every stream in the middle of its message",
    "11b" "go-away" Kind::Wire(Wire::GoAway) => "a sixth instance answers every call with GOAWAY",
    "11c" "half-open" Kind::Vanish { crashes: true } => "a sixth instance's host crashes without closing its connections, and restarts",
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
    /// The requirements that were not met.
    pub(crate) complaints: Vec<String>,
}

impl Row {
    /// The reason why this row cannot run on this machine, if it cannot.
    pub(crate) fn cannot_run(&self) -> Option<String> {
        matches!(self.kind, Kind::Vanish { .. })
            .then(network::unavailable)
            .flatten()
    }

    /// True if the fault adds an instance to the five.
    fn joins(&self) -> bool {
        matches!(self.kind, Kind::Faulty(_) | Kind::Vanish { .. })
    }

    pub(crate) async fn run(
        &self,
        length: Duration,
        rate: u32,
        flags: &[String],
    ) -> Result<Outcome> {
        let keeps_data = matches!(self.kind, Kind::ConsulRestarts { keeps_data: true });
        let mut env = Env::start(5, keeps_data, flags).await?;
        let before = env.metrics().await?;
        let load = Load::start(env.add.http, rate, length)?;
        let clock = Clock {
            begun: load.begun,
            length,
        };
        let (stop, stopped) = watch::channel(false);
        let watcher = tokio::spawn(observe(env.client.clone(), env.add.http, clock, stopped));
        let story = self.fault(&mut env, clock).await?;
        let calls = load.end().await?;
        stop.send_replace(true);
        let seen = watcher.await?;
        Ok(self.judge(&calls, &story, &before, &seen))
    }

    fn fault<'a>(
        &'a self,
        env: &'a mut Env,
        clock: Clock,
    ) -> Pin<Box<dyn Future<Output = Result<Story>> + 'a>> {
        match self.kind {
            Kind::RollingRestart => Box::pin(faults::rolling_restart(env, clock)),
            Kind::Kill(count) => Box::pin(faults::kill(env, clock, count)),
            Kind::Hang(count) => Box::pin(faults::hang(env, clock, count)),
            Kind::Faulty(fault) => Box::pin(faults::faulty(env, clock, fault)),
            Kind::Flap => Box::pin(faults::flap(env, clock)),
            Kind::ConsulHangs => Box::pin(faults::consul_hangs(env, clock)),
            Kind::ConsulRestarts { .. } => Box::pin(faults::consul_restarts(env, clock)),
            Kind::AllDead => Box::pin(faults::all_dead(env, clock)),
            Kind::Scale => Box::pin(faults::scale(env, clock)),
            Kind::Wire(fault) => Box::pin(faults::wire(env, clock, fault)),
            Kind::Vanish { crashes } => Box::pin(faults::vanish(env, clock, crashes)),
        }
    }

    fn judge(&self, calls: &[Call], story: &Story, before: &Metrics, seen: &[Sight]) -> Outcome {
        let mut latencies: Vec<_> = calls.iter().map(|call| call.latency).collect();
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
        let failures: Vec<_> = calls.iter().filter(|call| call.result.is_err()).collect();
        let bad_attempts = seen
            .last()
            .map(|last| last.metrics.bad_attempts() - before.bad_attempts());
        let served = calls
            .iter()
            .filter(|call| call.due >= story.began && story.ended.is_none_or(|end| call.due < end))
            .filter_map(|call| call.result.as_ref().ok())
            .flat_map(|instances| instances.split(','))
            .filter(|id| story.faulty.iter().any(|faulty| faulty == id))
            .count();
        let faulty_calls = story
            .counted
            .or_else(|| (!story.faulty.is_empty()).then(|| served + bad_attempts.unwrap_or(0)));
        let ready_before = before.ready();
        let noticed = (!story.faulty.is_empty())
            .then(|| {
                let mut sights = seen.iter().filter(|sight| sight.at >= story.began);
                // A faulty instance that joined is noticed when it is taken out again.
                let most = ready_before + usize::from(self.joins());
                let mut joined = !self.joins();
                sights.find(|sight| {
                    joined |= sight.metrics.ready() == most;
                    joined && sight.metrics.ready() < most
                })
            })
            .flatten()
            .map(|sight| sight.at.saturating_sub(story.began));
        let recovered = story.ended.and_then(|ended| {
            let cured = |call: &&Call| {
                call.due >= ended
                    && call.result.as_ref().is_ok_and(|instances| {
                        story.faulty.is_empty()
                            || story.faulty.iter().any(|id| instances.contains(&**id))
                    })
            };
            Some(calls.iter().find(cured)?.due.saturating_sub(ended))
        });
        let mut outcome = Outcome {
            calls: calls.len(),
            failed: failures.len(),
            p50: percentile(0.5).copied().unwrap_or_default(),
            p99: percentile(0.99).copied().unwrap_or_default(),
            worst: latencies.last().copied().unwrap_or_default(),
            faulty_calls,
            noticed,
            recovered,
            complaints: Vec::new(),
        };
        if let Kind::AllDead = self.kind {
            all_dead_holds(&failures, story, &mut outcome);
        } else {
            if let Some(first) = failures.first() {
                outcome.complaints.push(format!(
                    "{} calls failed; the first, due {:?} after the start: {:?}",
                    failures.len(),
                    first.due,
                    first.result
                ));
            }
            if outcome.p99 > P99 && outcome.calls >= ENOUGH_CALLS {
                outcome.complaints.push(format!("p99 is {:?}", outcome.p99));
            }
        }
        if story.counted == Some(0) {
            outcome
                .complaints
                .push("no call received the fault".to_owned());
        }
        outcome
    }
}

/// While all instances are dead, every call must be refused at once with 503 and a reason. One second
/// after the first instance is back, no call may fail.
fn all_dead_holds(failures: &[&Call], story: &Story, outcome: &mut Outcome) {
    let back = story.ended.unwrap_or_default() + BACK;
    for call in failures {
        let Err(reason) = &call.result else { continue };
        let complaint = if !reason.starts_with("503: {\"err\":\"") {
            format!("not 503 with a reason: {reason}")
        } else if call.latency > FAST {
            format!("refused only after {:?}: {reason}", call.latency)
        } else if call.due + call.latency < story.began {
            format!("failed before the fault: {reason}")
        } else if call.due >= back {
            format!(
                "failed {:?} after the first instance was back: {reason}",
                call.due.saturating_sub(back) + BACK
            )
        } else {
            continue;
        };
        outcome.complaints.push(complaint);
    }
    if failures.is_empty() {
        outcome
            .complaints
            .push("no call received the fault".to_owned());
    }
    outcome.complaints.truncate(5);
}

/// The metrics of the add service at one moment of the row.
struct Sight {
    at: Duration,
    metrics: Metrics,
}

/// Time after which the add service's counters include the last call: a channel publishes them once a
/// second.
const PUBLISHED: Duration = Duration::from_millis(1_100);

/// Reads the metrics of the add service until `stopped`, and once more then.
async fn observe(
    client: reqwest::Client,
    http: std::net::SocketAddr,
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
        if let Ok(metrics) = env::metrics(&client, http).await {
            let at = clock.begun.elapsed();
            seen.push(Sight { at, metrics });
        }
        if last {
            return seen;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

impl Outcome {
    pub(crate) fn json(&self, row: &Row) -> serde_json::Value {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "row": row.number,
            "name": row.name,
            "calls": self.calls,
            "failed": self.failed,
            "p50_ms": millis(self.p50),
            "p99_ms": millis(self.p99),
            "worst_ms": millis(self.worst),
            "faulty_calls": self.faulty_calls,
            "noticed_ms": self.noticed.map(millis),
            "recovered_ms": self.recovered.map(millis),
            "held": self.complaints.is_empty(),
            "complaints": self.complaints,
        })
    }
}
