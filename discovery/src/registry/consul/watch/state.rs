//! The state machine of a watch.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::query::HealthQuery;
use crate::{
    backoff::Backoff,
    future::BoxFuture,
    registry::{
        Listing, RegistryError, Source, Update, consul::health::Names, token_bucket::TokenBucket,
    },
};

/// The waits after answers that came at once without news. Such a server does not hold queries
/// back, and each answer costs it a whole list.
const NOT_HELD_BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));

/// An unchanged answer after this time was held back, by Consul or by a proxy.
const HELD: Duration = Duration::from_secs(1);

/// The state of a watch. It decides the next request.
#[derive(Clone, Copy, Debug)]
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
    /// The last request failed, and the driver has waited. The published instances stay.
    ///
    /// The next request asks without index, as `Fresh` does: the known index may be another
    /// Consul's.
    Failing,
}

pub(super) struct HealthSource {
    query: HealthQuery,
    requests: TokenBucket,
    state: State,
    names: Names,
    /// True if the last answer was good and empty, and is known not to be a denial.
    verified_empty: bool,
}

impl HealthSource {
    pub(super) fn new(query: HealthQuery, change_interval: Duration) -> Self {
        Self {
            query,
            requests: TokenBucket::new(change_interval),
            state: State::Fresh,
            names: Names::default(),
            verified_empty: false,
        }
    }

    async fn step(&mut self) -> Result<(State, Listing), RegistryError> {
        match self.state {
            State::Fresh => {
                sleep(self.requests.take(Instant::now())).await;
                self.ask_anew().await
            }
            State::Failing => self.ask_anew().await,
            State::Following { index, not_held } => {
                let pause = self.requests.take(Instant::now());
                sleep(pause.max(not_held_pause(not_held))).await;
                let asked = Instant::now();
                let (newer, listing) = self.ask(Some(index)).await?;
                if newer < index {
                    debug!(
                        service = self.query.service(),
                        index, newer, "the index went back"
                    );
                    return Ok((State::Fresh, listing));
                }
                let held = (self.query.wait() / 2).min(HELD);
                let early = newer == index && asked.elapsed() < held;
                let not_held = if early { not_held.saturating_add(1) } else { 0 };
                let index = newer;
                Ok((State::Following { index, not_held }, listing))
            }
        }
    }

    async fn ask_anew(&mut self) -> Result<(State, Listing), RegistryError> {
        let (index, listing) = self.ask(None).await?;
        Ok((State::Following { index, not_held: 0 }, listing))
    }

    /// Sends one query, held back if it names an index.
    async fn ask(&mut self, index: Option<u64>) -> Result<(u64, Listing), RegistryError> {
        let answer = self.query.ask(index).await?;
        if answer.decoded.empty && !self.verified_empty {
            self.query.verify_empty().await?;
        }
        self.verified_empty = answer.decoded.empty;
        let listing = answer.decoded.into_listing(&mut self.names);
        Ok((answer.index, listing))
    }
}

impl Source for HealthSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
        Box::pin(async {
            match self.step().await {
                Ok((state, listing)) => {
                    self.state = state;
                    Ok(listing.into())
                }
                Err(error) => {
                    self.state = State::Failing;
                    self.verified_empty = false;
                    Err(error)
                }
            }
        })
    }
}

fn not_held_pause(not_held: u32) -> Duration {
    match not_held {
        0 => Duration::ZERO,
        times => NOT_HELD_BACKOFF.after(times, &mut fastrand::Rng::new()),
    }
}
