//! One call, from the caller's request to the answer or the last attempt.
//!
//! ```text
//! pick from the snapshot -> send -> look at the answer -> hand it out
//!   ^                                  |
//!   '---- wait, if the policy says so -'
//! ```
//!
//! An answer is handed out when its first message is whole: up to there another attempt can take
//! its place unnoticed. A call whose request is streamed is handed out with the response's headers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    attempt::{AttemptRun, FailedAttempt},
    response::{ResponseBody, Tracker},
};
use crate::{
    BoxError,
    balance::Context,
    connection::{RequestBody, Transport},
    ejection::{Classification, EjectionPolicy},
    endpoint::{ConnectivityState, Endpoint},
    endpointer::{Endpointer, SetState, Snapshot},
    error::chain,
    grpc::{self, Code},
    hash,
    metrics::Counters,
    retry::{
        CallError, Decision, Failure, Hedge, Progress, RetryPolicy, attempts::Attempts,
        budget::Budget, latency::Latencies, replay::Replay,
    },
};

/// A call that is never processed is sent again for as long as there is time; this bounds the one
/// that has no deadline.
const MAX_TRANSPARENT_RETRIES: usize = 64;
/// No server is asked to take fewer calls at a time than this (RFC 9113, 6.5.2).
const MIN_CONCURRENT_STREAMS: u32 = 100;
/// A call that waits for a connection begins another one elsewhere this often, as Happy Eyeballs
/// does (RFC 8305, 8: 100 ms at the least, 250 ms recommended); a call here has less time than a
/// browser.
const CONNECT_STAGGER: Duration = Duration::from_millis(100);
/// Endpoints named one by one when all are down.
const NAMED: usize = 3;

/// What all calls of a channel share.
pub(crate) struct Shared {
    pub(crate) service: String,
    pub(crate) endpointer: Endpointer,
    pub(crate) policy: RetryPolicy,
    pub(crate) ejection: EjectionPolicy,
    pub(crate) budget: Budget,
    pub(crate) latencies: Latencies,
    pub(crate) counters: Counters,
    pub(crate) user_agent: HeaderValue,
    pub(crate) key_header: Option<HeaderName>,
}

impl Shared {
    pub(super) fn observe(&self, elapsed: Duration, now: Instant, failed: bool) {
        self.counters.duration.record(elapsed.as_secs_f64());
        if !failed && self.policy.hedge == Some(Hedge::Percentile95) {
            self.latencies.add(elapsed, now);
        }
    }

    fn hedge_delay(&self) -> Option<Duration> {
        match self.policy.hedge? {
            Hedge::After(delay) => Some(delay),
            Hedge::Percentile95 => self.latencies.percentile_95(),
        }
    }
}

/// Carries out one call.
pub(super) async fn run<B>(
    shared: Arc<Shared>,
    request: Request<B>,
) -> Result<Response<ResponseBody>, CallError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let result = match Call::begin(&shared, request) {
        Ok(mut call) => call.run().await,
        Err(error) => Err(error),
    };
    match &result {
        Ok(_) => shared.counters.calls_ok.increment(1),
        Err(error) => shared.counters.failure(error.code),
    }
    result
}

/// What does not change from one attempt to the next.
struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

struct Call<'a> {
    shared: &'a Arc<Shared>,
    head: Head,
    replay: Replay,
    idempotent: bool,
    key: Option<u64>,
    /// The caller's own deadline.
    caller: Option<Instant>,
    /// When the call is over, at the latest, if there is no answer by then.
    deadline: Option<Instant>,
    allowed: Duration,
    /// The time, as of the last step that could have taken any: the clock is read once per attempt.
    now: Instant,
    attempts: Attempts,
    rng: Rng,
}

/// An endpoint chosen for an attempt, and its connection.
struct Picked {
    endpoint: Arc<Endpoint>,
    transport: Arc<Box<dyn Transport>>,
    trial: bool,
}

impl Picked {
    /// Whether the instance has as many calls as it takes at a time.
    fn is_saturated(&self) -> bool {
        let in_flight = self.endpoint.stats().in_flight();
        in_flight >= MIN_CONCURRENT_STREAMS && in_flight as usize >= self.transport.capacity()
    }
}

/// What a look at the snapshot gave.
enum Choice {
    Picked(Picked),
    /// Something is about to change: a connection is being made, or the registry being asked.
    Wait,
    /// Nothing to pick from, and nothing to wait for.
    Nothing(String),
}

impl<'a> Call<'a> {
    fn begin<B>(shared: &'a Arc<Shared>, request: Request<B>) -> Result<Self, CallError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let now = Instant::now();
        let policy = &shared.policy;
        let (parts, body) = request.into_parts();
        let given = grpc::timeout(&parts.headers).map_err(|value| {
            CallError::new(
                Code::InvalidArgument,
                format!("malformed grpc-timeout {value:?}: expected up to 8 digits and a unit"),
            )
        })?;
        let replay = Replay::read(body, policy.replay_limit);
        let allowed = match given {
            Some(given) if replay.is_streaming() => given,
            Some(given) => given.min(policy.timeout),
            None => policy.timeout,
        };
        let bounded = given.is_some() || !replay.is_streaming();
        let key = parts.extensions.get::<HashKey>().map(|key| key.0);
        let key = key.or_else(|| {
            let value = parts.headers.get(shared.key_header.as_ref()?)?;
            Some(HashKey::of(value.as_bytes()).0)
        });
        let mut headers = parts.headers;
        headers
            .entry(header::USER_AGENT)
            .or_insert_with(|| shared.user_agent.clone());
        Ok(Self {
            idempotent: policy.idempotent.contains(parts.uri.path()),
            // A deadline too far away to be told in an `Instant` is none.
            caller: given.and_then(|given| now.checked_add(given)),
            deadline: now.checked_add(allowed).filter(|_| bounded),
            allowed,
            now,
            head: Head {
                method: parts.method,
                uri: parts.uri,
                headers,
            },
            replay,
            key,
            attempts: Attempts::default(),
            rng: Rng::new(),
            shared,
        })
    }

    async fn run(&mut self) -> Result<Response<ResponseBody>, CallError> {
        loop {
            if self.deadline.is_some_and(|at| self.now >= at) {
                return Err(self.out_of_time());
            }
            let picked = match self.pick().await {
                Ok(picked) => picked,
                Err(Some(reason)) => return Err(self.attempts.error(Code::Unavailable, reason)),
                Err(None) => return Err(self.out_of_time()),
            };
            let ended = match self.try_once(picked).await {
                Ok(response) => {
                    self.shared.budget.deposit(Instant::now());
                    return Ok(response);
                }
                Err(ended) => ended,
            };
            if let Some(result) = self.after(*ended).await {
                return result;
            }
            self.now = Instant::now();
        }
    }

    /// Decides what comes after a failed attempt; `None` is another one.
    async fn after(
        &mut self,
        ended: FailedAttempt,
    ) -> Option<Result<Response<ResponseBody>, CallError>> {
        let FailedAttempt {
            endpoint,
            begun,
            failure,
            reason,
            response,
        } = ended;
        self.attempts.fail(&endpoint, begun, failure, reason);
        let progress = Progress {
            attempts: self.attempts.sent,
            replayable: self.replay.attempt().is_some(),
            idempotent: self.idempotent,
            untried_left: self.untried_left(),
        };
        let policy = &self.shared.policy;
        let stop = |call: &mut Self, why: &str| {
            // A server's own answer is the caller's, unless retries have something to add.
            if let Some(response) = response
                && (call.attempts.failures() == 1 || !policy.repeats(failure, call.idempotent))
            {
                return Some(Ok(response));
            }
            let reason = format!("no answer from {}: {why}", call.shared.service);
            Some(Err(call.attempts.error(failure.code(), reason)))
        };
        match policy.decide(failure, progress, &mut self.rng) {
            Decision::Stop => {
                let why = match failure {
                    _ if !progress.replayable => "the request cannot be sent again",
                    _ if progress.attempts >= policy.max_attempts => "all attempts are used up",
                    Failure::Timeout => "it is not declared idempotent, so it was sent once",
                    _ => "it may not be repeated",
                };
                stop(self, why)
            }
            Decision::Retry { paid: false, .. }
                if self.attempts.failures() >= MAX_TRANSPARENT_RETRIES =>
            {
                stop(self, "no instance takes it")
            }
            Decision::Retry { after, paid } => {
                let now = Instant::now();
                if failure == Failure::Timeout && self.deadline.is_some_and(|at| now >= at) {
                    return Some(Err(self.out_of_time()));
                }
                if self.deadline.is_some_and(|at| now + after >= at) {
                    return stop(self, "no time is left for another attempt");
                }
                if paid && !self.shared.budget.withdraw(now) {
                    self.shared.counters.denied.increment(1);
                    return stop(self, "the retry budget is empty");
                }
                self.shared.counters.retries.increment(1);
                if !after.is_zero() {
                    sleep(after).await;
                }
                None
            }
        }
    }

    fn out_of_time(&mut self) -> CallError {
        let waiting = if self.attempts.is_empty() {
            " (it was waiting for a connection)"
        } else {
            ""
        };
        let reason = format!(
            "no answer from {} within {:?}{waiting}",
            self.shared.service, self.allowed
        );
        self.attempts.error(Code::DeadlineExceeded, reason)
    }

    fn untried_left(&self) -> bool {
        let snapshot = self.shared.endpointer.snapshot();
        // Looked at after a failure only, and found at once but where nearly all were tried.
        snapshot
            .candidates
            .iter()
            .any(|e| !self.attempts.has_tried(e) && e.transport().is_some())
    }

    /// Chooses an endpoint, waiting for one as long as there is something to wait for.
    ///
    /// `Err(None)` is the deadline, anything else the reason why there is none.
    async fn pick(&mut self) -> Result<Picked, Option<String>> {
        match self.choose() {
            Choice::Picked(picked) => Ok(picked),
            Choice::Nothing(reason) => Err(Some(reason)),
            // Apart, for what waiting takes is not to burden the calls that need not.
            Choice::Wait => Box::pin(self.wait()).await,
        }
    }

    async fn wait(&mut self) -> Result<Picked, Option<String>> {
        let mut versions = self.shared.endpointer.versions();
        loop {
            // Marked as seen before looking, so that no change between the two is missed.
            versions.borrow_and_update();
            match self.choose() {
                Choice::Picked(picked) => return Ok(picked),
                Choice::Nothing(reason) => return Err(Some(reason)),
                Choice::Wait => {}
            }
            // Where connections are made on demand, the one begun may be the one that hangs.
            let stagger = self.now + CONNECT_STAGGER;
            let until = self.deadline.map_or(stagger, |at| at.min(stagger));
            if let Ok(Err(_)) = timeout_at(until, versions.changed()).await {
                return Err(Some("the channel's runtime has ended".to_owned()));
            }
            self.now = Instant::now();
            if self.deadline.is_some_and(|at| self.now >= at) {
                return Err(None);
            }
        }
    }

    fn choose(&mut self) -> Choice {
        let snapshot = self.shared.endpointer.snapshot();
        if self.attempts.is_empty()
            && let Some(picked) = trial(&snapshot)
        {
            return Choice::Picked(picked);
        }
        let count = snapshot.candidates.len();
        if count == 0 {
            return self.nothing(&snapshot);
        }
        let context = Context {
            now: self.now,
            random: self.rng.u64(..),
            key: self.key,
            attempt: self.attempts.sent,
        };
        let first = snapshot.pick(&context);
        let mut saturated = None;
        let mut again = None;
        let mut woken = false;
        for step in 0..count {
            let index = if first + step < count {
                first + step
            } else {
                first + step - count
            };
            let endpoint = &snapshot.candidates[index];
            let Some(transport) = endpoint.transport() else {
                // One connection per pick is begun, not all that are passed over.
                if !woken && endpoint.subchannel().state() == ConnectivityState::Idle {
                    self.shared.endpointer.wake(endpoint);
                    woken = true;
                }
                continue;
            };
            let picked = Picked {
                endpoint: Arc::clone(endpoint),
                transport,
                trial: false,
            };
            if self.attempts.has_tried(endpoint) {
                again.get_or_insert(picked);
            } else if picked.is_saturated() {
                // A call that waits for its turn would end as if the instance had not answered.
                saturated.get_or_insert(picked);
            } else {
                return Choice::Picked(picked);
            }
        }
        // All that can take a call have more than they can take or have been tried, or none can yet.
        saturated.or(again).map_or(Choice::Wait, Choice::Picked)
    }

    fn nothing(&self, snapshot: &Snapshot) -> Choice {
        let service = &self.shared.service;
        let registry = snapshot
            .registry_error
            .as_ref()
            .map(|error| format!("; {}", chain(&**error)));
        let reason = match snapshot.state {
            SetState::Ready | SetState::Pending => return Choice::Wait,
            SetState::Unknown if registry.is_none() => return Choice::Wait,
            SetState::Unknown => format!("nothing is known of {service} yet"),
            SetState::Empty => format!("no instance of {service} is registered"),
            SetState::Down => format!(
                "none of the {} instances of {service} can be reached: {}",
                snapshot.all.len(),
                down(&snapshot.all)
            ),
        };
        Choice::Nothing(reason + &registry.unwrap_or_default())
    }

    /// One attempt, or two where the policy hedges.
    async fn try_once(
        &mut self,
        picked: Picked,
    ) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let Some(body) = self.replay.attempt() else {
            // `after` has looked, so only a race with the connection's own task leads here.
            return Err(Box::new(FailedAttempt {
                endpoint: picked.endpoint,
                begun: self.now,
                failure: Failure::Broken,
                reason: "the request was taken by an attempt before".to_owned(),
                response: None,
            }));
        };
        let first = self.attempt(picked, body, self.attempt_limit());
        match self.shared.hedge_delay() {
            Some(delay)
                if self.idempotent && self.attempts.sent < self.shared.policy.max_attempts =>
            {
                Box::pin(self.hedged(first, delay)).await
            }
            _ => first.run().await,
        }
    }

    /// A first attempt, and a second one if the first takes longer than this.
    async fn hedged(
        &mut self,
        first: AttemptRun,
        delay: Duration,
    ) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let limit = first.limit;
        let (endpoint, begun) = (Arc::clone(&first.tracker.endpoint), first.tracker.begun);
        let trial = first.tracker.trial;
        let first = first.run();
        tokio::pin!(first);
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = sleep(delay) => {}
        }
        let Some(second) = self.second(limit) else {
            return first.await;
        };
        let second = second.run();
        tokio::pin!(second);
        match select(first, second).await {
            Either::Left((Ok(response), _)) => Ok(response),
            Either::Right((Ok(response), _)) => {
                // Whoever loses every race may hang: its own timeout will never come to tell.
                let stats = endpoint.stats();
                let now = Instant::now();
                stats.observe(now, now - begun, false);
                if stats
                    .health()
                    .note(Classification::Overtaken, trial, &self.shared.ejection)
                {
                    self.shared.endpointer.review();
                }
                Ok(response)
            }
            Either::Left((Err(ended), other)) | Either::Right((Err(ended), other)) => {
                match self.outlived(ended) {
                    None => other.await,
                    Some(ended) => Err(ended),
                }
            }
        }
    }

    /// Notes an attempt that failed while a hedged one is out; gives it back where it decides the
    /// call, as a status that no other attempt can mend does (A6).
    fn outlived(&mut self, ended: Box<FailedAttempt>) -> Option<Box<FailedAttempt>> {
        if !self.shared.policy.repeats(ended.failure, self.idempotent) {
            return Some(ended);
        }
        self.attempts
            .fail(&ended.endpoint, ended.begun, ended.failure, ended.reason);
        None
    }

    /// A second attempt elsewhere while the first is out, if there is an elsewhere and the budget
    /// allows it.
    fn second(&mut self, limit: Option<Instant>) -> Option<AttemptRun> {
        self.now = Instant::now();
        let body = self.replay.attempt()?;
        let Choice::Picked(picked) = self.choose() else {
            return None;
        };
        let elsewhere = !self.attempts.has_tried(&picked.endpoint);
        if !elsewhere || !self.shared.budget.withdraw(self.now) {
            return None;
        }
        self.shared.counters.hedges.increment(1);
        Some(self.attempt(picked, body, limit))
    }

    /// When an attempt that begins now is given up.
    fn attempt_limit(&self) -> Option<Instant> {
        let policy = &self.shared.policy;
        let last = self.attempts.sent + 1 >= policy.max_attempts;
        if last || !self.idempotent || self.replay.is_streaming() {
            return self.deadline;
        }
        let own = self.now + policy.attempt_timeout();
        Some(self.deadline.map_or(own, |deadline| deadline.min(own)))
    }

    /// Begins an attempt.
    fn attempt(&mut self, picked: Picked, body: RequestBody, limit: Option<Instant>) -> AttemptRun {
        let request = self.request(body, limit);
        self.attempts.begin(&picked.endpoint);
        self.attempts.sent += 1;
        AttemptRun {
            tracker: Tracker::begin(self.shared, picked.endpoint, picked.trial, self.now),
            response: picked.transport.send(request),
            shared: Arc::clone(self.shared),
            limit,
            caller: self.caller,
            hold: !self.replay.is_streaming(),
        }
    }

    fn request(&self, body: RequestBody, limit: Option<Instant>) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.headers_mut() = self.head.headers.clone();
        if let Some(limit) = limit {
            // The server need not work on after the attempt was given up.
            let left = limit.saturating_duration_since(self.now);
            request
                .headers_mut()
                .insert(grpc::TIMEOUT, grpc::format_timeout(left));
        }
        if self.attempts.sent > 0 {
            let previous = HeaderValue::from(self.attempts.sent);
            request
                .headers_mut()
                .insert(grpc::PREVIOUS_ATTEMPTS, previous);
        }
        request
    }
}

/// The one call of an endpoint on probation, if there is such an endpoint.
fn trial(snapshot: &Snapshot) -> Option<Picked> {
    snapshot.probation.iter().find_map(|endpoint| {
        let transport = endpoint.transport()?;
        endpoint.stats().health().take_trial().then(|| Picked {
            endpoint: Arc::clone(endpoint),
            transport,
            trial: true,
        })
    })
}

/// Why each of them is down, as far as a line holds it.
fn down(all: &[Arc<Endpoint>]) -> String {
    let mut reasons: Vec<String> = all
        .iter()
        .take(NAMED)
        .map(|endpoint| match endpoint.subchannel().last_error() {
            Some(error) => format!("{}: {}", endpoint.instance(), chain(&**error)),
            None => format!("{}: not connected", endpoint.instance()),
        })
        .collect();
    if all.len() > NAMED {
        reasons.push(format!("and {} more", all.len() - NAMED));
    }
    reasons.join("; ")
}

/// Keeps calls of one key with one instance, where the balancer hashes: put it into a request's
/// extensions, or name a header to the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(pub u64);

impl HashKey {
    /// The key of these bytes: the same in every process and in every release (FNV-1a, 64 bits,
    /// mixed).
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(hash::bytes(bytes))
    }
}
