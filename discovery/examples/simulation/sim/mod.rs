//! The simulation: who calls whom through which phases, and what is counted.

mod changing;
mod clients;
mod fleet;
mod registry;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use discovery::Instance;
use fastrand::Rng;
use testkit::Table;
use tokio::time::sleep;

use self::{
    clients::{Clients, Tally},
    fleet::{Fleet, Process},
    registry::Listing,
};

/// How large, how long, and from which seed.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) seed: u64,
    pub(crate) clients: u32,
    pub(crate) instances: u32,
    /// Instances each client connects to.
    pub(crate) subset: usize,
    /// Calls a second of each client.
    pub(crate) rate: u32,
    pub(crate) phase: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 1,
            clients: 1_000,
            instances: 10_000,
            subset: 50,
            rate: 10,
            phase: Duration::from_secs(30),
        }
    }
}

/// What happens to the fleet meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectivityState {
    /// Nothing.
    Steady,
    /// Every second one instance in 200 leaves and as many come. Half of them deregister first;
    /// the others die, which the registry notices three seconds later.
    Churn,
    /// One in ten is ten times as slow.
    SlowTenth,
    /// The registry does not answer, and one instance in 100 dies in the middle of it.
    RegistryOutage,
    /// Every instance answers UNAVAILABLE.
    FullOutage,
    /// All is well again, from the first moment of it.
    Recovery,
}

impl ConnectivityState {
    const ALL: [Self; 6] = [
        Self::Steady,
        Self::Churn,
        Self::SlowTenth,
        Self::RegistryOutage,
        Self::FullOutage,
        Self::Recovery,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Churn => "churn, 1 in 200 a second",
            Self::SlowTenth => "a tenth is slow",
            Self::RegistryOutage => "registry away, 1 in 100 dies",
            Self::FullOutage => "every instance UNAVAILABLE",
            Self::Recovery => "all well again",
        }
    }
}

/// Instances that leave and come each second of [`ConnectivityState::Churn`], as a part of all.
const CHURN: u32 = 200;
/// How long a leaving instance finishes what it has, and how late a death is noticed.
const DRAIN: Duration = Duration::from_secs(2);
const NOTICE: Duration = Duration::from_secs(3);
/// Between the start of the clients and the first call.
const SETTLE: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// What one phase came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) phase: ConnectivityState,
    pub(crate) calls: u64,
    pub(crate) lost: u64,
    /// Calls that reached an instance, for each call made.
    pub(crate) amplification: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Standard deviation over mean of the calls per instance, of those there all the time.
    pub(crate) spread: f64,
    pub(crate) connections_mean: f64,
    pub(crate) connections_most: u64,
    pub(crate) registry_rate: f64,
}

impl Row {
    pub(crate) fn lost_share(&self) -> f64 {
        share(self.lost, self.calls)
    }
}

/// The rows for people.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "phase",
        "calls",
        "lost",
        "attempts per call",
        "p50",
        "p99",
        "load CV",
        "connections per instance (most)",
        "registry requests/s",
    ]);
    for row in rows {
        table.row([
            row.phase.name().to_owned(),
            row.calls.to_string(),
            format!("{:.4} %", row.lost_share() * 100.0),
            format!("{:.3}", row.amplification),
            format!("{} ms", row.p50.as_millis()),
            format!("{} ms", row.p99.as_millis()),
            format!("{:.3}", row.spread),
            format!("{:.1} ({})", row.connections_mean, row.connections_most),
            format!("{:.1}", row.registry_rate),
        ]);
    }
    table
}

/// Runs all phases on one thread and a clock that jumps. The thread's generator is seeded, so that
/// everything the library draws is the seed's as well.
pub(crate) fn simulate(config: &Config) -> anyhow::Result<Vec<Row>> {
    fastrand::seed(config.seed);
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .context("cannot start a runtime")?
        .block_on(World::new(config)?.run())
}

struct World {
    config: Config,
    rng: Rng,
    fleet: Fleet,
    registry: Listing,
    /// What the registry is to list, sorted by ID.
    listed: Vec<Arc<Instance>>,
    born: u32,
}

impl World {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let mut rng = Rng::with_seed(config.seed);
        let mut world = Self {
            config: config.clone(),
            fleet: Fleet::new(rng.fork()),
            rng,
            registry: Listing::new(Arc::new([])),
            listed: Vec::new(),
            born: 0,
        };
        for _ in 0..config.instances {
            world.start_one()?;
        }
        world.list();
        Ok(world)
    }

    async fn run(mut self) -> anyhow::Result<Vec<Row>> {
        let clients = Clients::start(&self.config, &self.registry, &self.fleet)?;
        sleep(SETTLE).await;
        let load = clients.load(self.config.seed);
        let mut ended = Vec::new();
        for phase in ConnectivityState::ALL {
            let tally = clients.begin_phase();
            ended.push((self.phase(phase).await?, tally));
        }
        load.stop();
        // The last calls of the last phase end on their own.
        sleep(SETTLE).await;
        Ok(ended
            .into_iter()
            .map(|(row, tally)| row.with_calls(&tally))
            .collect())
    }

    async fn phase(&mut self, phase: ConnectivityState) -> anyhow::Result<Measured> {
        let watched: Vec<_> = self
            .listed
            .iter()
            .filter_map(|instance| {
                let process = self.fleet.process(&instance.id)?;
                let calls = process.calls();
                Some((process, calls))
            })
            .collect();
        let requests = self.registry.requests();
        let attempts = self.fleet.attempts();
        self.begin(phase);
        let seconds = self.config.phase.as_secs();
        for second in 0..seconds {
            if phase == ConnectivityState::Churn {
                self.churn()?;
            }
            if phase == ConnectivityState::RegistryOutage && second == seconds / 2 {
                let dying = self.listed.len() / 100;
                self.kill(dying);
            }
            sleep(SECOND).await;
        }
        let watched: Vec<_> = watched
            .into_iter()
            .filter(|(process, _)| process.lives())
            .collect();
        let measured = Measured {
            phase,
            attempts: self.fleet.attempts() - attempts,
            spread: spread(&watched),
            connections: watched.iter().map(|(p, _)| p.connections()).collect(),
            registry_rate: share(self.registry.requests() - requests, seconds),
        };
        self.end(phase);
        Ok(measured)
    }

    fn begin(&mut self, phase: ConnectivityState) {
        match phase {
            ConnectivityState::SlowTenth => self.slow_down(true),
            ConnectivityState::RegistryOutage => self.registry.set_up(false),
            ConnectivityState::FullOutage => self.fleet.set_outage(true),
            ConnectivityState::Steady | ConnectivityState::Churn | ConnectivityState::Recovery => {}
        }
    }

    fn end(&mut self, phase: ConnectivityState) {
        match phase {
            ConnectivityState::SlowTenth => self.slow_down(false),
            ConnectivityState::RegistryOutage => {
                let fleet = self.fleet.clone();
                self.listed
                    .retain(|instance| fleet.process(&instance.id).is_some_and(|p| p.lives()));
                self.list();
                self.registry.set_up(true);
            }
            ConnectivityState::FullOutage => self.fleet.set_outage(false),
            ConnectivityState::Steady | ConnectivityState::Churn | ConnectivityState::Recovery => {}
        }
    }

    fn start_one(&mut self) -> anyhow::Result<()> {
        let number = self.born;
        self.born += 1;
        let [_, a, b, c] = number.to_be_bytes();
        let instance = Instance::new(format!("10.{a}.{b}.{c}"), 80)?
            .with_id(format!("fleet-{number:08}"))
            .with_service("fleet");
        self.fleet.start(&instance);
        // IDs grow, so the list stays sorted.
        self.listed.push(Arc::new(instance));
        Ok(())
    }

    fn list(&self) {
        self.registry.set(self.listed.clone());
    }

    fn take_any(&mut self) -> Option<Arc<Instance>> {
        if self.listed.is_empty() {
            return None;
        }
        let index = self.rng.usize(..self.listed.len());
        Some(self.listed.remove(index))
    }

    fn churn(&mut self) -> anyhow::Result<()> {
        for turn in 0..self.config.instances.div_ceil(CHURN) {
            self.start_one()?;
            let Some(leaving) = self.take_any() else {
                continue;
            };
            let fleet = self.fleet.clone();
            if turn % 2 == 0 {
                tokio::spawn(async move {
                    sleep(DRAIN).await;
                    fleet.kill(&leaving.id);
                });
            } else {
                fleet.kill(&leaving.id);
                self.registry.list_dead(leaving, NOTICE);
            }
        }
        self.list();
        Ok(())
    }

    /// Deaths that the registry has no chance to notice.
    fn kill(&mut self, count: usize) {
        for _ in 0..count {
            let index = self.rng.usize(..self.listed.len());
            self.fleet.kill(&self.listed[index].id);
        }
    }

    fn slow_down(&self, slow: bool) {
        for instance in self.listed.iter().step_by(10) {
            if let Some(process) = self.fleet.process(&instance.id) {
                process.set_slow(slow);
            }
        }
    }
}

/// A phase as the fleet saw it.
struct Measured {
    phase: ConnectivityState,
    attempts: u64,
    spread: f64,
    connections: Vec<u64>,
    registry_rate: f64,
}

impl Measured {
    /// Together with what the callers saw.
    fn with_calls(self, tally: &Tally) -> Row {
        let connections: u64 = self.connections.iter().sum();
        Row {
            phase: self.phase,
            calls: tally.calls(),
            lost: tally.lost(),
            amplification: share(self.attempts, tally.calls()),
            p50: tally.percentile(50),
            p99: tally.percentile(99),
            spread: self.spread,
            connections_mean: share(connections, self.connections.len() as u64),
            connections_most: self.connections.iter().copied().max().unwrap_or(0),
            registry_rate: self.registry_rate,
        }
    }
}

/// The coefficient of variation of the calls that each process has had since it was noted down.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52 calls")]
fn spread(watched: &[(Arc<Process>, u64)]) -> f64 {
    let calls: Vec<_> = watched
        .iter()
        .map(|(process, before)| (process.calls() - before) as f64)
        .collect();
    let count = calls.len().max(1) as f64;
    let mean = calls.iter().sum::<f64>() / count;
    let variance = calls.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / count;
    if mean > 0.0 {
        variance.sqrt() / mean
    } else {
        0.0
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52 calls")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
