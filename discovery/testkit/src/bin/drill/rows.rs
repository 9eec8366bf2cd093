//! The rows of the drill: what each does, and what it must hold to.

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

/// Rows hold to a 99th percentile only when a hundredth of their calls is more than what is on its
/// way when a fault strikes.
const ENOUGH_CALLS: usize = 8_000;
const P99: Duration = Duration::from_millis(50);
/// A call that cannot be answered is refused this fast; a busy machine needs some slack.
const FAST: Duration = Duration::from_millis(100);
/// After the first instance is back, calls may fail this long.
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
    Sick(&'static str),
    Flap,
    ConsulHangs,
    ConsulRestarts { keeps_data: bool },
    Vanish { dies: bool },
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
    "1" "rolling-restart" Kind::RollingRestart => "each instance is ended by SIGTERM and started anew, one after another",
    "2a" "kill-1" Kind::Kill(1) => "kill -9 of one of five",
    "2b" "kill-3" Kind::Kill(3) => "kill -9 of three of five at the same moment",
    "3a" "hang-1" Kind::Hang(1) => "SIGSTOP of one of five, then SIGCONT",
    "3b" "hang-2" Kind::Hang(2) => "SIGSTOP of two of five, then SIGCONT",
    "4" "slow" Kind::Sick("latency=300ms,rate=1") => "a sixth instance that takes 300 ms for every call",
    "5a" "unavailable" Kind::Sick("error=unavailable,rate=1") => "a sixth instance that answers UNAVAILABLE to every call",
    "5b" "internal-30" Kind::Sick("error=internal,rate=0.3") => "a sixth instance that answers INTERNAL to 30 % of its calls",
    "6" "flap" Kind::Flap => "one instance dies and comes back every two seconds",
    "7a" "consul-hangs" Kind::ConsulHangs => "SIGSTOP of Consul, then SIGCONT",
    "7b" "consul-empty" Kind::ConsulRestarts { keeps_data: false } => "Consul is killed and comes back empty",
    "7c" "consul-critical" Kind::ConsulRestarts { keeps_data: true } => "Consul is killed and comes back with every check critical",
    "8" "black-hole" Kind::Vanish { dies: false } => "a sixth instance whose host's packets vanish both ways",
    "9" "all-dead" Kind::AllDead => "all five are killed; later one comes back",
    "10" "scale" Kind::Scale => "from 5 instances to 50 and back to 3",
    "11a" "reset" Kind::Wire(Wire::ResetInMessage) => "a sixth instance resets every stream in the middle of its message",
    "11b" "go-away" Kind::Wire(Wire::GoAway) => "a sixth instance says GOAWAY to every call",
    "11c" "half-open" Kind::Vanish { dies: true } => "a sixth instance's host dies without a word and comes back knowing no connection",
}

/// What a row's callers noticed.
pub(crate) struct Outcome {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) worst: Duration,
    /// Attempts and calls that went to the sick while they were.
    pub(crate) met_sick: Option<usize>,
    /// From the fault to the first change in what the client uses.
    pub(crate) noticed: Option<Duration>,
    /// From the cure to the first call that a cured instance served.
    pub(crate) recovered: Option<Duration>,
    /// What the row should have held to and did not.
    pub(crate) complaints: Vec<String>,
}

impl Row {
    /// Why this row cannot be run on this machine.
    pub(crate) fn cannot_run(&self) -> Option<String> {
        matches!(self.kind, Kind::Vanish { .. })
            .then(network::unavailable)
            .flatten()
    }

    /// Does the fault come with an instance that joins the five?
    fn joins(&self) -> bool {
        matches!(self.kind, Kind::Sick(_) | Kind::Vanish { .. })
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
            Kind::Sick(fault) => Box::pin(faults::sick(env, clock, fault)),
            Kind::Flap => Box::pin(faults::flap(env, clock)),
            Kind::ConsulHangs => Box::pin(faults::consul_hangs(env, clock)),
            Kind::ConsulRestarts { .. } => Box::pin(faults::consul_restarts(env, clock)),
            Kind::AllDead => Box::pin(faults::all_dead(env, clock)),
            Kind::Scale => Box::pin(faults::scale(env, clock)),
            Kind::Wire(fault) => Box::pin(faults::wire(env, clock, fault)),
            Kind::Vanish { dies } => Box::pin(faults::vanish(env, clock, dies)),
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
        let served_sick = calls
            .iter()
            .filter(|call| call.due >= story.began && story.ended.is_none_or(|end| call.due < end))
            .filter_map(|call| call.result.as_ref().ok())
            .flat_map(|instances| instances.split(','))
            .filter(|id| story.sick.iter().any(|sick| sick == id))
            .count();
        let met_sick = story
            .counted
            .or_else(|| (!story.sick.is_empty()).then(|| served_sick + bad_attempts.unwrap_or(0)));
        let ready_before = before.ready();
        let noticed = (!story.sick.is_empty())
            .then(|| {
                let mut sights = seen.iter().filter(|sight| sight.at >= story.began);
                // A sick newcomer is noticed when it is taken out again.
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
                        story.sick.is_empty()
                            || story.sick.iter().any(|id| instances.contains(&**id))
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
            met_sick,
            noticed,
            recovered,
            complaints: Vec::new(),
        };
        if let Kind::AllDead = self.kind {
            all_dead_holds(&failures, story, &mut outcome);
        } else {
            if let Some(first) = failures.first() {
                outcome.complaints.push(format!(
                    "{} calls failed; the first, due {:?} after the beginning: {:?}",
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
                .push("the fault was never met".to_owned());
        }
        outcome
    }
}

/// Nobody can answer while all are dead: every call must be refused at once with 503 and a reason,
/// and a second after the first instance is back none may fail any more.
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
                "failed {:?} after the first one was back: {reason}",
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
            .push("the fault was never met".to_owned());
    }
    outcome.complaints.truncate(5);
}

/// The add service's own figures at one moment of the row.
struct Sight {
    at: Duration,
    metrics: Metrics,
}

/// Time after which the add service's counters include the last call: a channel publishes them once a
/// second.
const PUBLISHED: Duration = Duration::from_millis(1_100);

/// Looks at the add service's figures until told to stop, and once more then.
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
        // A look that fails is one look less: the load tells whether the service is well.
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
            "met_sick": self.met_sick,
            "noticed_ms": self.noticed.map(millis),
            "recovered_ms": self.recovered.map(millis),
            "held": self.complaints.is_empty(),
            "complaints": self.complaints,
        })
    }
}
