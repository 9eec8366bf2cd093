//! The state machine of a watch.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{last_good::LastGood, query::HealthQuery};
use crate::{
    backoff::Backoff,
    registry::{RegistryError, consul::token_bucket::TokenBucket},
};

/// The waits after failures. The first is short because most failures are a connection that broke
/// while the agent is up again. The maximum is low because a refused connection costs little, and
/// many watches spread over 5 s do not overload a Consul that has just started.
const FAILURE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// The waits after answers that came at once without news. Such a server does not hold queries
/// back, and each answer costs it a whole list.
const NOT_HELD_BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));

/// An unchanged answer after this time was held back, by Consul or by a proxy.
const HELD: Duration = Duration::from_secs(1);

/// The state of a watch. It decides the next request.
#[derive(Debug)]
enum State {
    /// No index is known. The next request asks for the current instances; Consul answers at once.
    ///
    /// A good answer leads to `Following`, a failure to `Failing`.
    Fresh,
    /// The instances at `index` are published. The next request asks for what follows it; Consul
    /// holds it back.
    ///
    /// A higher index stays here, and so does the same index after `wait`. A lower index comes from
    /// a Consul that lost its state: its answer is published, its index is dropped, and the state
    /// is `Fresh`. A failure leads to `Failing`.
    Following {
        index: u64,
        /// The number of answers in a row that came early and with the same index.
        not_held: u32,
    },
    /// The last `failures` requests failed. The published instances stay.
    ///
    /// After a wait the next request asks without index, as `Fresh` does: the known index may be
    /// another Consul's.
    Failing { failures: u32 },
}

pub(super) struct Watch {
    query: HealthQuery,
    last_good: LastGood,
    requests: TokenBucket,
}

impl Watch {
    pub(super) fn new(query: HealthQuery, last_good: LastGood, change_interval: Duration) -> Self {
        Self {
            query,
            last_good,
            requests: TokenBucket::new(change_interval),
        }
    }

    pub(super) async fn run(mut self) {
        let mut state = State::Fresh;
        loop {
            state = self.step(state).await;
        }
    }

    async fn step(&mut self, state: State) -> State {
        match state {
            State::Fresh => {
                sleep(self.requests.take(Instant::now())).await;
                match self.ask(None).await {
                    Ok(index) => State::Following { index, not_held: 0 },
                    Err(error) => self.failed(error, 1),
                }
            }
            State::Following { index, not_held } => {
                let pause = self.requests.take(Instant::now());
                sleep(pause.max(not_held_pause(not_held))).await;
                let asked = Instant::now();
                match self.ask(Some(index)).await {
                    Ok(newer) if newer < index => {
                        debug!(
                            service = self.query.service(),
                            index, newer, "the index went back"
                        );
                        State::Fresh
                    }
                    Ok(newer) => {
                        let held = (self.query.wait() / 2).min(HELD);
                        let early = newer == index && asked.elapsed() < held;
                        State::Following {
                            index: newer,
                            not_held: if early { not_held.saturating_add(1) } else { 0 },
                        }
                    }
                    Err(error) => self.failed(error, 1),
                }
            }
            State::Failing { failures } => {
                sleep(FAILURE_BACKOFF.after(failures, &mut fastrand::Rng::new())).await;
                match self.ask(None).await {
                    Ok(index) => State::Following { index, not_held: 0 },
                    Err(error) => self.failed(error, failures.saturating_add(1)),
                }
            }
        }
    }

    /// Sends one query, held back if it names an index. Publishes a good answer and returns its
    /// index.
    async fn ask(&mut self, index: Option<u64>) -> Result<u64, RegistryError> {
        let answer = self.query.ask(index).await?;
        if answer.decoded.empty && !self.last_good.is_confirmed_empty() {
            self.query.verify_empty().await?;
        }
        self.last_good.confirm(answer.decoded);
        Ok(answer.index)
    }

    fn failed(&mut self, error: RegistryError, failures: u32) -> State {
        self.last_good.failed(error, failures);
        State::Failing { failures }
    }
}

fn not_held_pause(not_held: u32) -> Duration {
    match not_held {
        0 => Duration::ZERO,
        times => NOT_HELD_BACKOFF.after(times, &mut fastrand::Rng::new()),
    }
}
