//! The rows of the drill: the instances, the fault and the requirement of each.

use std::{future::Future, pin::Pin, time::Duration};

use anyhow::Result;
use serde_json::json;
use testkit::faulty::Fault as Wire;
use tokio::sync::watch;

use crate::{
    client::Client,
    clock::Clock,
    env::{Env, INSTANCES, Instances},
    faults::{self, Story},
    fronts::Nginx,
    judge::{Demand, Evidence, Outcome},
    load::{Callers, Load},
    network,
    observe::observe,
    peers,
    protocol::Protocol,
    registry::{self, Registry},
};

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
    Registry(registry::Fault),
    Forgotten,
    Vanish { crashes: bool },
    AllDead,
    Scale,
    Wire(Wire),
    BehindNginx,
    Aged(Duration),
    Useless(Wire),
    Foreign,
    ShortDeadline,
    AllFailing,
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
    "7a" "registry-hangs" Kind::Registry(registry::Fault::Hangs) => "SIGSTOP of the registry, then SIGCONT",
    "7b" "registry-empty" Kind::Registry(registry::Fault::Empties) => "the registry is killed and restarts empty",
    "7c" "registry-restarts" Kind::Registry(registry::Fault::Restarts) => "the registry is killed and restarts with its data, Consul with every check critical",
    "7d" "registry-forgets" Kind::Forgotten => "the registry is killed and restarts empty, and nothing registers the instances again",
    "8" "black-hole" Kind::Vanish { crashes: false } => "a sixth instance whose host's packets are dropped in both directions",
    "9" "all-dead" Kind::AllDead => "all five are killed; one is restarted later",
    "10" "scale" Kind::Scale => "from 5 instances to 50 and back to 3",
    "11a" "reset" Kind::Wire(Wire::ResetInMessage) => "a sixth instance resets every stream in the middle of its message",
    "11b" "go-away" Kind::Wire(Wire::GoAway) => "a sixth instance answers every call with GOAWAY",
    "11c" "half-open" Kind::Vanish { crashes: true } => "a sixth instance's host crashes without closing its connections, and restarts",
    "12" "nginx" Kind::BehindNginx => "three instances behind nginx, which ends each connection after 1 000 requests",
    "13" "connection-age" Kind::Aged(Duration::from_millis(700)) => "five instances that end each connection after 700 ms",
    "14a" "foreign-page" Kind::Useless(Wire::NotFoundPage) => "a sixth instance is a web server that answers 404 with a page",
    "14b" "foreign-grpc" Kind::Foreign => "a sixth instance is a gRPC server of another service",
    "15" "headers-only" Kind::Useless(Wire::SilenceAfterHeaders) => "a sixth instance sends the headers of each answer and no message",
    "16" "short-deadline" Kind::ShortDeadline => "half as many calls again with a deadline of 5 ms, to instances that take 15 ms",
    "17" "all-failing" Kind::AllFailing => "all five answer UNAVAILABLE to every call, until they are restarted",
}

/// The settings of a run.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) length: Duration,
    /// Calls per second.
    pub(crate) rate: u32,
    pub(crate) registry: registry::Kind,
    pub(crate) client: Client,
    pub(crate) protocol: Protocol,
    /// Flags of the add service.
    pub(crate) flags: &'a [String],
    /// The HTTP port of the add service, instead of a free one.
    pub(crate) http_port: Option<u16>,
}

impl Row {
    /// The reason why this row cannot run on this machine, if it cannot.
    pub(crate) fn cannot_run(&self, registry: registry::Kind) -> Option<String> {
        let reason = match self.kind {
            Kind::Vanish { .. } => network::unavailable(),
            Kind::BehindNginx => Nginx::unavailable(),
            _ => None,
        };
        reason.or_else(|| registry.cannot_run(self.registry_fault()))
    }

    /// True if the row is about discovery, so that it differs by registry: rolling restarts, crashes,
    /// hangs, faults of the registry and the loss of all instances.
    pub(crate) fn is_for_every_registry(&self) -> bool {
        matches!(
            self.kind,
            Kind::RollingRestart
                | Kind::Kill(_)
                | Kind::Hang(_)
                | Kind::Registry(_)
                | Kind::AllDead
        )
    }

    /// True if the row makes sense for plain HTTP: faults of processes, and of answers.
    pub(crate) fn is_for_http(&self) -> bool {
        matches!(
            self.kind,
            Kind::RollingRestart | Kind::Kill(_) | Kind::Hang(_) | Kind::Faulty(_) | Kind::AllDead
        )
    }

    fn registry_fault(&self) -> Option<registry::Fault> {
        match self.kind {
            Kind::Registry(fault) => Some(fault),
            _ => None,
        }
    }

    fn instances(&self) -> Instances {
        match self.kind {
            Kind::Forgotten => Instances::Listed(INSTANCES),
            Kind::BehindNginx => Instances::BehindNginx,
            Kind::Aged(age) => Instances::Aged(age),
            Kind::ShortDeadline => Instances::Trims(INSTANCES, &["--fault", "latency=15ms,rate=1"]),
            Kind::AllFailing => {
                Instances::Trims(INSTANCES, &["--fault", "error=unavailable,rate=1"])
            }
            _ => Instances::Trims(INSTANCES, &[]),
        }
    }

    fn demand(&self) -> Demand {
        match self.kind {
            Kind::AllDead => Demand::Outage,
            Kind::BehindNginx | Kind::Aged(_) => Demand::EvenRotation,
            Kind::Useless(_) | Kind::Foreign => Demand::Ejection,
            Kind::ShortDeadline => Demand::NoEjection,
            Kind::AllFailing => Demand::FewRetries,
            _ => Demand::None,
        }
    }

    pub(crate) async fn run(&self, settings: Settings<'_>) -> Result<Outcome> {
        let Settings {
            length,
            rate,
            registry,
            client,
            protocol,
            flags,
            http_port,
        } = settings;
        let port = http_port.map(|port| ["--http-port".to_owned(), port.to_string()]);
        let flags: Vec<_> = flags
            .iter()
            .cloned()
            .chain(port.into_iter().flatten())
            .collect();
        let _only = match self.kind {
            Kind::Vanish { .. } => Some(network::only().await),
            _ => None,
        };
        let poll = registry.poll();
        let registry = Registry::start(registry, self.registry_fault()).await?;
        let mut env = Env::start(self.instances(), registry, client, protocol, &flags).await?;
        let before = env.metrics().await?;
        let load = Load::start(env.add.http(), Callers::with_one_second(rate), length)?;
        let clock = Clock {
            begun: load.begun,
            length,
        };
        let (stop, stopped) = watch::channel(false);
        let watcher = tokio::spawn(observe(env.client.clone(), env.add.http(), clock, stopped));
        let story = self.fault(&mut env, clock, rate).await?;
        let calls = load.end().await?;
        stop.send_replace(true);
        let seen = watcher.await?;
        let evidence = Evidence {
            calls: &calls,
            story: &story,
            before: &before,
            seen: &seen,
            poll,
        };
        Ok(evidence.judge(self.demand()))
    }

    fn fault<'a>(
        &'a self,
        env: &'a mut Env,
        clock: Clock,
        rate: u32,
    ) -> Pin<Box<dyn Future<Output = Result<Story>> + 'a>> {
        match self.kind {
            Kind::RollingRestart => Box::pin(faults::rolling_restart(env, clock)),
            Kind::Kill(count) => Box::pin(faults::kill(env, clock, count)),
            Kind::Hang(count) => Box::pin(faults::hang(env, clock, count)),
            Kind::Faulty(fault) => Box::pin(faults::faulty(env, clock, fault)),
            Kind::Flap => Box::pin(faults::flap(env, clock)),
            Kind::Registry(registry::Fault::Hangs) => Box::pin(faults::registry_hangs(env, clock)),
            Kind::Registry(fault) => Box::pin(faults::registry_restarts(env, clock, fault)),
            Kind::Forgotten => {
                let fault = registry::Fault::Empties;
                Box::pin(faults::registry_restarts(env, clock, fault))
            }
            Kind::AllDead => Box::pin(faults::all_dead(env, clock)),
            Kind::Scale => Box::pin(faults::scale(env, clock)),
            Kind::Wire(fault) => Box::pin(peers::wire(env, clock, fault)),
            Kind::Vanish { crashes } => Box::pin(faults::vanish(env, clock, crashes)),
            Kind::BehindNginx | Kind::Aged(_) => Box::pin(peers::ending_connections(env, clock)),
            Kind::Useless(fault) => Box::pin(peers::useless(env, clock, fault)),
            Kind::Foreign => Box::pin(peers::foreign(env, clock)),
            Kind::ShortDeadline => Box::pin(peers::short_deadline(env, clock, rate)),
            Kind::AllFailing => Box::pin(faults::all_failing(env, clock)),
        }
    }
}

impl Outcome {
    pub(crate) fn json(&self, row: &Row, client: &str, registry: &str) -> serde_json::Value {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "row": row.number,
            "name": row.name,
            "client": client,
            "registry": registry,
            "calls": self.calls,
            "failed": self.failed,
            "p50_ms": millis(self.p50),
            "p99_ms": millis(self.p99),
            "worst_ms": millis(self.worst),
            "faulty_calls": self.faulty_calls,
            "noticed_ms": self.noticed.map(millis),
            "recovered_ms": self.recovered.map(millis),
            "affected_ms": self.affected.map(millis),
            "held": self.complaints.is_empty(),
            "complaints": self.complaints,
        })
    }
}
