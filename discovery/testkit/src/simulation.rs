//! A fleet in one process: many clients and many instances, through churn, slow instances, a
//! registry outage and an outage of all instances. Time jumps from event to event.
//!
//! The clients are real channels: balancing, retry, budget, ejection and the endpointer are the
//! ones that a service uses. Instances and connections are simulated without sockets. So is the
//! registry, whose watches send requests as the Consul watch does. One thread and one seed: the
//! same seed gives the same table.

mod changing;
mod clients;
mod fleet;
mod registry;
mod report;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use discovery::Instance;
use fastrand::Rng;
use tokio::time::sleep;

pub use self::report::{Row, table};
use self::{
    clients::Clients,
    fleet::Fleet,
    registry::Listing,
    report::{Measured, share, spread},
};

/// The size, the length and the seed of a simulation.
#[derive(Clone, Debug)]
pub struct Config {
    /// Seed of everything that is random.
    pub seed: u64,
    /// Number of clients.
    pub clients: u32,
    /// Number of instances at the start.
    pub instances: u32,
    /// Instances that each client connects to.
    pub subset: usize,
    /// Calls per second of each client.
    pub rate: u32,
    /// Length of each phase.
    pub phase: Duration,
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

/// The events of the fleet during a part of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    Steady,
    /// Every second one instance in 200 leaves and as many start. Half of those that leave
    /// deregister first; the others crash, which the registry notices three seconds later.
    Churn,
    /// One instance in ten is ten times as slow.
    SlowTenth,
    /// The registry is unreachable, and one instance in 100 crashes halfway through.
    RegistryOutage,
    /// Every instance answers UNAVAILABLE.
    FullOutage,
    /// No fault, from the first moment of the phase.
    Recovery,
}

impl Phase {
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
            Self::SlowTenth => "1 in 10 slow",
            Self::RegistryOutage => "registry unreachable, 1 in 100 crashes",
            Self::FullOutage => "every instance UNAVAILABLE",
            Self::Recovery => "recovery",
        }
    }
}

/// The instances that leave and start in each second of [`Phase::Churn`]: one in this many.
const CHURN: u32 = 200;
/// Time between the deregistration of an instance and its end.
const DRAIN: Duration = Duration::from_secs(2);
/// Time between the crash of an instance and its removal from the registry.
const NOTICE: Duration = Duration::from_secs(3);
/// Time between the start of the clients and the first call.
const SETTLE: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// Runs all phases on one thread and a paused clock. Also seeds the thread's generator, from which
/// the library draws its random numbers.
///
/// # Errors
///
/// When a runtime or a client cannot be built.
pub fn simulate(config: &Config) -> anyhow::Result<Vec<Row>> {
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
    /// The instances that the registry lists, sorted by ID.
    listed: Vec<Arc<Instance>>,
    /// Instances started so far.
    started: u32,
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
            started: 0,
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
        for phase in Phase::ALL {
            let tally = clients.begin_phase();
            ended.push((self.phase(phase).await?, tally));
        }
        load.stop();
        // The calls in flight at the end of the last phase are counted.
        sleep(SETTLE).await;
        Ok(ended
            .into_iter()
            .map(|(row, tally)| row.with_calls(&tally))
            .collect())
    }

    async fn phase(&mut self, phase: Phase) -> anyhow::Result<Measured> {
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
            if phase == Phase::Churn {
                self.churn()?;
            }
            if phase == Phase::RegistryOutage && second == seconds / 2 {
                let dying = self.listed.len() / 100;
                self.kill(dying);
            }
            sleep(SECOND).await;
        }
        let watched: Vec<_> = watched
            .into_iter()
            .filter(|(process, _)| process.is_running())
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

    fn begin(&mut self, phase: Phase) {
        match phase {
            Phase::SlowTenth => self.slow_down(true),
            Phase::RegistryOutage => self.registry.set_up(false),
            Phase::FullOutage => self.fleet.set_outage(true),
            Phase::Steady | Phase::Churn | Phase::Recovery => {}
        }
    }

    fn end(&mut self, phase: Phase) {
        match phase {
            Phase::SlowTenth => self.slow_down(false),
            Phase::RegistryOutage => {
                let fleet = self.fleet.clone();
                self.listed
                    .retain(|instance| fleet.process(&instance.id).is_some_and(|p| p.is_running()));
                self.list();
                self.registry.set_up(true);
            }
            Phase::FullOutage => self.fleet.set_outage(false),
            Phase::Steady | Phase::Churn | Phase::Recovery => {}
        }
    }

    fn start_one(&mut self) -> anyhow::Result<()> {
        let number = self.started;
        self.started += 1;
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

    /// Crashes instances while the registry cannot notice it.
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
