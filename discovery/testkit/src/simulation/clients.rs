//! The clients: one real channel each, called at a constant rate whatever the answers are.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use discovery::Channel;
use fastrand::Rng;
use proto::{TrimRequest, trim_client::TrimClient};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Config, fleet::Fleet, registry::Listing};

/// The results of the calls that started in one phase.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    /// Number of answers by latency, in milliseconds.
    answered: Vec<u64>,
    lost: u64,
}

impl Tally {
    fn note(&self, taken: Duration, answered: bool) {
        let mut calls = lock(&self.0);
        if !answered {
            calls.lost += 1;
            return;
        }
        let millis = usize::try_from(taken.as_millis()).unwrap_or(usize::MAX);
        if calls.answered.len() <= millis {
            calls.answered.resize(millis + 1, 0);
        }
        calls.answered[millis] += 1;
    }

    pub(crate) fn calls(&self) -> u64 {
        let calls = lock(&self.0);
        calls.lost + calls.answered.iter().sum::<u64>()
    }

    pub(crate) fn lost(&self) -> u64 {
        lock(&self.0).lost
    }

    /// A percentile of the latency of the answers.
    pub(crate) fn percentile(&self, percent: u64) -> Duration {
        let calls = lock(&self.0);
        let wanted = (calls.answered.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        let within = calls.answered.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        Duration::from_millis(within.unwrap_or(0) as u64)
    }
}

pub(crate) struct Clients {
    channels: Vec<Channel>,
    interval: Duration,
    /// The tally of the current phase.
    tally: Arc<Mutex<Arc<Tally>>>,
}

/// The tasks that make the calls. Dropping it stops them; calls in flight finish.
pub(crate) struct Load(JoinSet<()>);

impl Load {
    pub(crate) fn stop(mut self) {
        self.0.abort_all();
    }
}

impl Clients {
    pub(crate) fn start(
        config: &Config,
        registry: &Listing,
        fleet: &Fleet,
    ) -> anyhow::Result<Self> {
        let build = |number| {
            Channel::from_registry(Arc::new(registry.clone()), "fleet")
                .factory(fleet.clone())
                .subset(config.subset)
                .subset_id(format!("client-{number}"))
                .build()
                .context("cannot build a client")
        };
        Ok(Self {
            channels: (0..config.clients).map(build).collect::<Result<_, _>>()?,
            interval: Duration::from_secs(1) / config.rate.max(1),
            tally: Arc::default(),
        })
    }

    /// The tally of all calls that start from now on.
    pub(crate) fn begin_phase(&self) -> Arc<Tally> {
        let tally = Arc::default();
        *lock(&self.tally) = Arc::clone(&tally);
        tally
    }

    pub(crate) fn load(&self, seed: u64) -> Load {
        let mut load = JoinSet::new();
        for (number, channel) in (1..).zip(&self.channels) {
            load.spawn(keep_calling(
                TrimClient::new(channel.clone()),
                self.interval,
                Arc::clone(&self.tally),
                Rng::with_seed(seed.wrapping_mul(1 << 32).wrapping_add(number)),
            ));
        }
        Load(load)
    }
}

/// Makes calls at random moments, one per interval on average, without waiting for the answers.
async fn keep_calling(
    client: TrimClient<Channel>,
    interval: Duration,
    tally: Arc<Mutex<Arc<Tally>>>,
    mut rng: Rng,
) {
    loop {
        sleep(interval.mul_f64(2.0 * rng.f64())).await;
        let mut client = client.clone();
        let tally = Arc::clone(&lock(&tally));
        tokio::spawn(async move {
            let begun = Instant::now();
            let answer = client.trim_space(TrimRequest::default()).await;
            tally.note(begun.elapsed(), answer.is_ok());
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
