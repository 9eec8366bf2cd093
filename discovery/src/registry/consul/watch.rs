//! The watch of one service: Consul's blocking queries as a state machine.
//!
//! Consul numbers its states. A query that names the number (the index) it has seen is held back
//! until something newer is there, or until `wait` is over; so one request at a time is always
//! under way, and a change is here milliseconds after it happened.
//!
//! ```text
//!             any failure
//!   Fresh ------------------> Failing --(after a wait that grows)--> asks again as Fresh
//!     |  ^                      ^
//!     |  | index went back      | any failure
//!     v  |                      |
//!   Following ------------------'
//! ```
//!
//! What the answers mean, and what they do not:
//!
//! * An answer proves no change: it also comes when `wait` is over, and when something changed that
//!   the query's filters hide. Only a different result is published.
//! * An index is worth nothing after a failure: a restarted Consul may count from the start, and a
//!   query with the old, too high number would hide every change until `wait` is over.
//! * An empty list may be Consul's way to say "denied". It is asked about, see [`Watch::verify_empty`].
//! * After a restart from its data folder Consul calls every check critical until it has run again.
//!   The watch publishes that as Consul says it; doubting a set that shrinks all at once is for
//!   the one that knows the connections.

use std::{mem, sync::Arc, time::Duration};

use reqwest::{Method, StatusCode, header::HeaderMap};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use super::{
    client::{Answer, Client, Request, segment},
    model::{self, Decoded, Rejected},
    token_bucket::TokenBucket,
};
use crate::{
    backoff::Backoff,
    error::chain,
    instance::Instance,
    metrics::{RegistryMetrics, ServiceMetrics},
    registry::{InstanceSet, Instancer, Query, RegistryError},
};

/// The first retry comes at once, since most failures are a connection that broke with an agent
/// that is back already. The ceiling is low: a refused connection costs a dead Consul nothing, and
/// a fleet of watchers spread over 5 s does not trouble one that has just started.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// For a server that answers at once without anything new: it does not hold queries back, and each
/// answer costs it a full one.
const NOT_HELD: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));

/// A body up to this size is decoded where it arrives, in well under a millisecond.
const SMALL_BODY: usize = 64 << 10;

/// An unchanged answer that took this long was held back, by whatever rule of Consul's or of a proxy's.
const HELD: Duration = Duration::from_secs(1);

/// A running watch; dropping it ends the watch and its request.
pub(super) struct ConsulInstancer {
    sets: watch::Receiver<InstanceSet>,
    task: JoinHandle<()>,
}

impl ConsulInstancer {
    /// Must be called inside a tokio runtime.
    pub(super) fn start(
        client: Arc<Client>,
        query: Query,
        wait: Duration,
        change_interval: Duration,
    ) -> Self {
        let (publish, sets) = watch::channel(InstanceSet::default());
        let watch = Watch {
            action: format!("watch {}", query.service),
            metrics: ServiceMetrics::of(&query.service).registry(client.name()),
            client,
            query,
            wait,
            publish,
            rejected: Rejected::default(),
            requests: TokenBucket::new(change_interval),
        };
        Self {
            sets,
            task: tokio::spawn(watch.run()),
        }
    }
}

impl Instancer for ConsulInstancer {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.sets.clone()
    }
}

impl Drop for ConsulInstancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the watch stands. Each state says what is asked next.
#[derive(Debug)]
enum State {
    /// No index is known: ask for what is there now. Answered at once.
    ///
    /// A good answer leads to `Following`, a failure to `Failing`.
    Fresh,
    /// The state at `index` is published: ask for what comes after it. Held back by Consul.
    ///
    /// A higher index, or the same one when `wait` is over, stays here. A lower one was given by a
    /// Consul that lost its state: its answer counts, its index does not, back to `Fresh`. A
    /// failure leads to `Failing`.
    Following {
        index: u64,
        /// Answers in a row that came early and with the same index.
        not_held: u32,
    },
    /// The last `failures` answers were none. The published instances stay.
    ///
    /// Waits, then asks as `Fresh` does: whatever index was known may be another Consul's.
    Failing { failures: u32 },
}

struct Watch {
    client: Arc<Client>,
    query: Query,
    wait: Duration,
    publish: watch::Sender<InstanceSet>,
    action: String,
    metrics: Arc<RegistryMetrics>,
    /// What was last complained about, so that it is said once.
    rejected: Rejected,
    requests: TokenBucket,
}

impl Watch {
    async fn run(mut self) {
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
                            service = self.query.service,
                            index, newer, "the index went back"
                        );
                        State::Fresh
                    }
                    Ok(newer) => {
                        let held = (self.wait / 2).min(HELD);
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
                sleep(BACKOFF.after(failures, &mut fastrand::Rng::new())).await;
                match self.ask(None).await {
                    Ok(index) => State::Following { index, not_held: 0 },
                    Err(error) => self.failed(error, failures.saturating_add(1)),
                }
            }
        }
    }

    /// One query, held back if it names an index. Publishes a good answer and returns its index.
    async fn ask(&mut self, index: Option<u64>) -> Result<u64, RegistryError> {
        let answer = self.health(index).await?;
        let index = self.index(&answer)?;
        let decoded = self.decode(answer.body).await?;
        if decoded.empty {
            self.verify_empty().await?;
        }
        self.complain(decoded.rejected);
        self.succeeded(decoded.instances);
        Ok(index)
    }

    async fn health(&self, index: Option<u64>) -> Result<Answer, RegistryError> {
        let path = format!("/v1/health/service/{}", segment(&self.query.service));
        let mut request = Request::new(Method::GET, path, &self.action);
        if self.query.passing_only {
            request.query.push(("passing", "1"));
        }
        // An old Consul looks at the first only; the others are looked at here as well.
        for tag in &self.query.tags {
            request.query.push(("tag", tag));
        }
        if let Some(datacenter) = &self.query.datacenter {
            request.query.push(("dc", datacenter));
        }
        let (number, wait);
        if let Some(index) = index {
            number = index.to_string();
            wait = format!("{}ms", self.wait.as_millis());
            request
                .query
                .extend([("index", &*number), ("wait", &*wait)]);
            // Consul adds up to a sixteenth, so that watches that began together end apart.
            request.held = Some(self.wait + self.wait / 16 + Duration::from_secs(5));
        }
        self.client.call_ok(request).await
    }

    /// The answer's index, at least 1: Consul would not hold a query with index 0 back.
    fn index(&self, answer: &Answer) -> Result<u64, RegistryError> {
        let header = |name| header(&answer.headers, name);
        if header("x-consul-knownleader") == Some("false") {
            let reason = "it knows no leader, its answer may be old".to_owned();
            return Err(self.client.malformed(&self.action, reason));
        }
        let index = header("x-consul-index").and_then(|text| text.parse::<u64>().ok());
        index.map(|index| index.max(1)).ok_or_else(|| {
            let reason = "no X-Consul-Index; is this Consul's own address?".to_owned();
            self.client.malformed(&self.action, reason)
        })
    }

    async fn decode(&self, body: Vec<u8>) -> Result<Decoded, RegistryError> {
        let decoded = if body.len() <= SMALL_BODY {
            model::decode(&body, &self.query)
        } else {
            // Megabytes take milliseconds, during which this thread would serve nobody.
            let query = self.query.clone();
            tokio::task::spawn_blocking(move || model::decode(&body, &query))
                .await
                .map_err(|e| self.client.malformed(&self.action, e.to_string()))?
        };
        decoded.map_err(|e| self.client.malformed(&self.action, e.to_string()))
    }

    /// Whether an empty list is the truth. To one who may not read a service or its nodes, Consul
    /// shows it without instances; two other calls tell that apart.
    async fn verify_empty(&self) -> Result<(), RegistryError> {
        let verified = |set: &InstanceSet| {
            set.confirmed.is_some() && set.error.is_none() && set.instances.is_empty()
        };
        if verified(&self.publish.borrow()) {
            return Ok(());
        }
        // 404 for a service that this agent does not run; 403 only if it may not be read.
        let path = format!(
            "/v1/agent/health/service/name/{}",
            segment(&self.query.service)
        );
        let answer = self
            .client
            .call(Request::new(Method::GET, path, &self.action))
            .await?;
        if !answer.status.is_success() {
            debug!(status = %answer.status, "no word on whether the service may be read");
        }
        // The agent itself is a node, so that no node at all means that none may be seen.
        let path = "/v1/catalog/nodes".to_owned();
        let mut request = Request::new(Method::GET, path, &self.action);
        if let Some(datacenter) = &self.query.datacenter {
            request.query.push(("dc", datacenter));
        }
        let answer = self.client.call(request).await?;
        if answer.status == StatusCode::OK && answer.body.trim_ascii() == b"[]" {
            let reason = "the token may not read nodes, without which Consul shows no instance";
            return Err(self.client.denied(&self.action, reason.to_owned()));
        }
        Ok(())
    }

    /// Says what was left out, once for each change of it.
    fn complain(&mut self, rejected: Rejected) {
        if rejected == self.rejected {
            return;
        }
        if let Some(first) = &rejected.first {
            self.metrics.rejected(rejected.count);
            warn!(
                service = self.query.service,
                registry = self.client.name(),
                entries = rejected.count,
                "left out unusable instances, the first one because: {first}"
            );
        }
        self.rejected = rejected;
    }

    fn succeeded(&mut self, instances: Vec<Instance>) {
        let mut new = InstanceSet::confirmed(instances);
        let mut recovered = false;
        let changed = self.publish.send_if_modified(|current| {
            let first = current.confirmed.is_none();
            recovered = current.error.is_some();
            let changed = current.instances != new.instances;
            if changed {
                keep_unchanged(&current.instances, &mut new.instances);
            } else {
                new.instances = Arc::clone(&current.instances);
            }
            let _old = mem::replace(current, new);
            first || recovered || changed
        });
        if changed {
            self.metrics.updated();
            let count = self.publish.borrow().instances.len();
            let (service, registry) = (&self.query.service, self.client.name());
            if recovered {
                info!(service, registry, instances = count, "the registry is back");
            } else {
                debug!(service, registry, instances = count, "instances changed");
            }
        }
    }

    /// Keeps the instances and says why they were not confirmed; leads to `Failing`.
    fn failed(&mut self, error: RegistryError, failures: u32) -> State {
        self.metrics.failed();
        let reason = chain(&error);
        let error = Arc::new(error);
        let news = self.publish.send_if_modified(|current| {
            let same = current
                .error
                .as_ref()
                .is_some_and(|e| chain(&**e) == reason);
            current.error = Some(error);
            !same
        });
        if failures == 1 {
            let kept = self.publish.borrow().instances.len();
            warn!(
                service = self.query.service,
                kept, "the registry is away: {reason}"
            );
        } else if news {
            debug!(
                service = self.query.service,
                failures, "still without registry: {reason}"
            );
        }
        State::Failing { failures }
    }
}

fn not_held_pause(not_held: u32) -> Duration {
    match not_held {
        0 => Duration::ZERO,
        times => NOT_HELD.after(times, &mut fastrand::Rng::new()),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Puts the old allocation in place of an equal new one, so that readers may compare by pointer.
/// Both are sorted by ID.
fn keep_unchanged(old: &[Arc<Instance>], new: &mut Arc<[Arc<Instance>]>) {
    let Some(new) = Arc::get_mut(new) else {
        return;
    };
    for instance in new {
        if let Ok(at) = old.binary_search_by(|o| o.id.cmp(&instance.id))
            && old[at] == *instance
        {
            *instance = Arc::clone(&old[at]);
        }
    }
}
