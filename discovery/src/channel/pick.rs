//! Picks the endpoint of an attempt from the current snapshot, and waits for one while a connection
//! is being made or the registry has not answered yet.

use std::{pin::pin, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::{Instant, timeout_at};

use super::{limit::Limit, options::Target, place::Place, shared::Shared};
use crate::{
    balance::Context,
    code::Code,
    connection::Transport,
    endpoint::{ConnectivityState, Endpoint, WatchedHealth},
    endpointer::{SetState, Snapshot},
    error::chain,
    retry::{CallError, CallErrorKind, attempts::Attempts},
};

/// A server takes at least this many calls at a time (RFC 9113, section 6.5.2).
pub(super) const MIN_CONCURRENT_STREAMS: u32 = 100;
/// Interval at which a call that waits for a connection begins another one elsewhere, or uses another. Happy Eyeballs
/// waits 250 ms, and at least 100 ms (RFC 8305, section 8); a call has less time than a browser.
const CONNECT_STAGGER: Duration = Duration::from_millis(100);
/// Other picks in place of one that takes no more calls.
const MAX_REDRAWS: usize = 3;
/// Instances named one by one in an error when none can be reached.
const MAX_NAMED: usize = 3;

/// The connection of an endpoint.
pub(super) type Open = Arc<Box<dyn Transport>>;

/// An attempt's place at the endpoint chosen for it, and the endpoint's connection.
pub(super) struct Picked {
    pub(super) place: Place,
    pub(super) transport: Open,
}

impl Picked {
    /// `None` if another pick has taken the last place within the endpoint's concurrency limit.
    pub(super) fn take(
        shared: &Arc<Shared>,
        endpoint: &Arc<Endpoint>,
        transport: Open,
    ) -> Option<Self> {
        let place = Place::take(shared, endpoint)?;
        Some(Self { place, transport })
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.place.endpoint
    }
}

/// The result of a look at the snapshot.
pub(super) enum Choice {
    Picked(Picked),
    /// The connection to this endpoint was begun for the call.
    Begun(Arc<Endpoint>),
    /// A connection is being made, or the registry has not answered yet.
    Wait,
    /// Every instance has as many calls in flight as its concurrency limit allows.
    Limited,
    /// There is nothing to pick from and nothing to wait for.
    Nothing(CallErrorKind, String),
}

/// The parts of a call that a pick depends on, besides the snapshot.
pub(super) struct Picking<'c> {
    pub(super) shared: &'c Arc<Shared>,
    pub(super) attempts: &'c mut Attempts,
    pub(super) limit: Limit,
    /// True to wait while there is nothing to pick from.
    pub(super) wait_for_ready: bool,
    /// The instances that the caller asks for.
    pub(super) target: Option<&'c Target>,
    pub(super) key: Option<u64>,
    pub(super) rng: &'c mut Rng,
    pub(super) now: &'c mut Instant,
}

impl Picking<'_> {
    /// Picks an endpoint, waiting for one as long as there is something to wait for.
    ///
    /// # Errors
    ///
    /// If there is nothing to wait for, or at the deadline.
    pub(super) async fn pick(mut self) -> Result<Picked, CallError> {
        match self.choose(true) {
            Choice::Picked(picked) => Ok(picked),
            Choice::Nothing(..) | Choice::Limited if self.waits() => Box::pin(self.wait()).await,
            Choice::Nothing(kind, reason) => Err(self.nothing(kind, reason)),
            Choice::Limited => Err(self.limited()),
            // Boxed, so that calls that do not wait do not pay for its size.
            Choice::Begun(endpoint) => Box::pin(self.wait_for(&endpoint)).await,
            Choice::Wait => Box::pin(self.wait()).await,
        }
    }

    /// Waits for the connection to this endpoint, but not long where there are others.
    async fn wait_for(&mut self, endpoint: &Arc<Endpoint>) -> Result<Picked, CallError> {
        let patience = *self.now + CONNECT_STAGGER;
        loop {
            // Registered before the look, so that no change between the two is missed.
            let settled = endpoint.subchannel().settled();
            if let Some(transport) = endpoint.transport() {
                return match Picked::take(self.shared, endpoint, transport) {
                    Some(picked) => Ok(picked),
                    None => self.wait().await,
                };
            }
            let connects = endpoint.subchannel().state() == ConnectivityState::Connecting;
            if !connects || *self.now >= patience {
                // Other calls need not wait for it.
                self.shared.endpointer.review();
                return self.wait().await;
            }
            let deadline = self.limit.deadline();
            let until = deadline.map_or(patience, |at| at.min(patience));
            let _settled = timeout_at(until, settled).await;
            *self.now = Instant::now();
            if self.limit.is_over(*self.now) {
                return Err(out_of_time(self.shared, self.attempts, &self.limit));
            }
        }
    }

    async fn wait(&mut self) -> Result<Picked, CallError> {
        let mut versions = self.shared.endpointer.versions();
        // The reason why there is nothing to pick from, as of the last look.
        let mut missing;
        loop {
            // Marked as seen and registered before the look, so that no change between the two is missed.
            versions.borrow_and_update();
            let mut freed = pin!(self.shared.freed.notified());
            freed.as_mut().enable();
            match self.choose(false) {
                Choice::Picked(picked) => return Ok(picked),
                Choice::Nothing(kind, reason) if self.waits() => missing = Some((kind, reason)),
                Choice::Nothing(kind, reason) => return Err(self.nothing(kind, reason)),
                Choice::Limited if self.waits() => missing = Some(self.at_limit()),
                Choice::Limited => return Err(self.limited()),
                Choice::Begun(_) | Choice::Wait => missing = None,
            }
            // Without eager connections, the one that was begun may hang.
            let stagger = *self.now + CONNECT_STAGGER;
            let deadline = self.limit.deadline();
            let until = deadline.map_or(stagger, |at| at.min(stagger));
            tokio::select! {
                changed = timeout_at(until, versions.changed()) => {
                    if let Ok(Err(_)) = changed {
                        return Err(self.runtime_ended());
                    }
                }
                () = freed => {}
            }
            *self.now = Instant::now();
            if self.limit.is_over(*self.now) {
                return Err(match missing {
                    Some((kind, reason)) => {
                        let reason = format!("waited {} for an instance: {reason}", self.limit);
                        self.attempts.error(Code::DeadlineExceeded, kind, reason)
                    }
                    None => out_of_time(self.shared, self.attempts, &self.limit),
                });
            }
        }
    }

    /// True if a call with nothing to pick from waits for an instance.
    fn waits(&self) -> bool {
        self.wait_for_ready && !self.shared.endpointer.has_ended()
    }

    /// The reason why a call over the limits of all instances is not sent.
    fn at_limit(&self) -> (CallErrorKind, String) {
        let reason = format!(
            "every instance of {} has as many calls as its concurrency limit allows",
            self.shared.service
        );
        (CallErrorKind::ConcurrencyLimit, reason)
    }

    fn limited(&mut self) -> CallError {
        self.shared.counters.limited.increment(1);
        let (kind, reason) = self.at_limit();
        self.attempts.error(Code::ResourceExhausted, kind, reason)
    }

    fn nothing(&mut self, kind: CallErrorKind, reason: String) -> CallError {
        // A runtime that ends closes the connections, so the last snapshot may have none.
        if self.shared.endpointer.has_ended() {
            return self.runtime_ended();
        }
        self.attempts.error(Code::Unavailable, kind, reason)
    }

    fn runtime_ended(&mut self) -> CallError {
        let reason = format!(
            "the channel to {} cannot be used: its runtime has ended; build a channel in this one",
            self.shared.service
        );
        self.attempts
            .error(Code::Unavailable, CallErrorKind::RuntimeEnded, reason)
    }

    /// Looks at the snapshot once. An instance that the call has not tried comes first, then one
    /// that is saturated, then one tried before.
    ///
    /// If connections are made on demand, a `patient` call begins the one to the endpoint that the
    /// policy has picked. If it took a connected one, a few would receive most calls.
    pub(super) fn choose(&mut self, patient: bool) -> Choice {
        let snapshot = self.shared.endpointer.snapshot();
        if let Some(target) = self.target {
            if let Some(choice) = self.choose_among(target, &snapshot) {
                return choice;
            }
            if !snapshot.candidates.is_empty() {
                self.shared.counters.fallbacks.increment(1);
            }
        } else if self.attempts.is_empty()
            && let Some(picked) = trial(self.shared, &snapshot)
        {
            return Choice::Picked(picked);
        }
        if snapshot.candidates.is_empty() {
            return nothing(self.shared, &snapshot);
        }
        let mut context =
            Context::new(self.now.into_std(), self.rng.u64(..)).with_attempt(self.attempts.sent());
        context.key = self.key;
        let first = self.first(&snapshot, &mut context);
        loop {
            let (endpoint, transport) = match self.look(&snapshot, first, patient) {
                Look::Found(endpoint, transport) => (endpoint, transport),
                Look::Begun(endpoint) => return Choice::Begun(Arc::clone(endpoint)),
                Look::Limited => return Choice::Limited,
                Look::Wait => return Choice::Wait,
            };
            // Without a place, other picks have reached the limit since the look, so the next look
            // finds another endpoint.
            if let Some(picked) = Picked::take(self.shared, endpoint, transport) {
                return Choice::Picked(picked);
            }
        }
    }
}

/// The result of a look at the candidates.
enum Look<'s> {
    Found(&'s Arc<Endpoint>, Open),
    /// The connection to this endpoint was begun for the call.
    Begun(&'s Arc<Endpoint>),
    /// As of [`Choice`].
    Limited,
    Wait,
}

impl Picking<'_> {
    /// Looks for an endpoint that can take a call, from the candidate with the index `first` on.
    fn look<'s>(&self, snapshot: &'s Snapshot, first: usize, patient: bool) -> Look<'s> {
        let count = snapshot.candidates.len();
        let mut saturated = None;
        let mut again = None;
        let mut woken = false;
        let mut limited = false;
        for step in 0..count {
            let index = if first + step < count {
                first + step
            } else {
                first + step - count
            };
            let endpoint = &snapshot.candidates[index];
            if endpoint.stats().is_at_limit() {
                limited = true;
                continue;
            }
            let Some(transport) = endpoint.transport() else {
                if step == 0 && patient && self.begins(endpoint) {
                    return Look::Begun(endpoint);
                }
                // A pick begins one connection, not one to each endpoint that it passes over.
                if !woken && endpoint.subchannel().state() == ConnectivityState::Idle {
                    self.shared.endpointer.wake(endpoint);
                    woken = true;
                }
                continue;
            };
            if self.attempts.has_tried(endpoint) {
                again.get_or_insert((endpoint, transport));
            } else if self.is_saturated(endpoint, &transport) {
                // A call that queues there would time out as if the instance had not answered.
                saturated.get_or_insert((endpoint, transport));
            } else {
                return Look::Found(endpoint, transport);
            }
        }
        match saturated.or(again) {
            Some((endpoint, transport)) => Look::Found(endpoint, transport),
            None if limited => Look::Limited,
            None => Look::Wait,
        }
    }

    /// True if the instance has as many calls as it takes at a time.
    fn is_saturated(&self, endpoint: &Endpoint, transport: &Open) -> bool {
        let in_flight = endpoint.stats().in_flight();
        in_flight >= self.shared.min_capacity && in_flight as usize >= transport.capacity()
    }

    /// The policy's pick. Where instances take few calls at a time, one that takes no more is replaced by
    /// another pick: its calls must not all go to the next instance.
    fn first(&mut self, snapshot: &Snapshot, context: &mut Context) -> usize {
        let mut first = snapshot.pick(context);
        if self.shared.min_capacity >= MIN_CONCURRENT_STREAMS {
            return first;
        }
        for _ in 0..MAX_REDRAWS {
            let endpoint = &snapshot.candidates[first];
            let in_flight = endpoint.stats().in_flight() as usize;
            let is_full = endpoint
                .transport()
                .is_some_and(|transport| in_flight >= transport.capacity());
            if !is_full {
                break;
            }
            context.random = self.rng.u64(..);
            first = snapshot.pick(context);
        }
        first
    }

    /// Begins a connection on demand. True if it is being made, for this call or for another one.
    fn begins(&self, endpoint: &Endpoint) -> bool {
        let endpointer = &self.shared.endpointer;
        if endpointer.is_eager() || self.attempts.has_tried(endpoint) {
            return false;
        }
        endpointer.wake(endpoint);
        endpoint.subchannel().state() == ConnectivityState::Connecting
    }
}

/// The endpoint on probation that may have one call, if there is one.
fn trial(shared: &Arc<Shared>, snapshot: &Snapshot) -> Option<Picked> {
    snapshot.probation.iter().find_map(|endpoint| {
        let transport = endpoint.transport()?;
        let health = endpoint.stats().health();
        if !health.take_trial() {
            return None;
        }
        let mut picked = Picked::take(shared, endpoint, transport);
        match &mut picked {
            Some(picked) => picked.place.trial = true,
            None => health.return_trial(),
        }
        picked
    })
}

/// The reason why the snapshot has no candidates.
fn nothing(shared: &Shared, snapshot: &Snapshot) -> Choice {
    let service = &shared.service;
    let registry = snapshot
        .registry_error
        .as_ref()
        .map(|error| format!("; {}", chain(&**error)));
    let (kind, reason) = match snapshot.state {
        SetState::Ready | SetState::Pending => return Choice::Wait,
        SetState::Unknown if registry.is_none() => return Choice::Wait,
        SetState::Unknown => (
            CallErrorKind::RegistrySilent,
            format!("the instances of {service} are not known yet"),
        ),
        SetState::Empty => (
            CallErrorKind::NoInstances,
            match snapshot.unusable {
                0 => format!(
                    "no instance of {service} is registered in {}",
                    shared.registry
                ),
                registered => format!(
                    "none of the {registered} instances of {service} that are registered in {} passes \
                     its health checks",
                    shared.registry
                ),
            },
        ),
        SetState::Down => {
            let refuses = |endpoint: &Arc<Endpoint>| {
                let health = endpoint.subchannel().watched_health();
                health.refusal().is_some() && endpoint.connection().is_some()
            };
            let refusing = snapshot.all.iter().filter(|e| refuses(e)).count();
            if refusing < snapshot.all.len() {
                shared.endpointer.urge();
            }
            let (kind, what) = if refusing > 0 {
                (CallErrorKind::NoneServing, "reports SERVING")
            } else {
                (CallErrorKind::AllUnreachable, "can be reached")
            };
            let reason = format!(
                "none of the {} instances of {service} {what}: {}",
                snapshot.all.len(),
                reasons(&snapshot.all)
            );
            (kind, reason)
        }
    };
    Choice::Nothing(kind, reason + &registry.unwrap_or_default())
}

/// The reason why each instance receives no calls, as far as one line holds them.
fn reasons(all: &[Arc<Endpoint>]) -> String {
    let mut reasons: Vec<String> = all
        .iter()
        .take(MAX_NAMED)
        .map(|endpoint| {
            let (instance, subchannel) = (endpoint.instance(), endpoint.subchannel());
            let refusal = subchannel.watched_health().refusal();
            match (refusal, subchannel.last_error()) {
                (Some(refusal), _) if endpoint.connection().is_some() => {
                    format!("{instance}: {refusal}")
                }
                (_, Some(error)) => format!("{instance}: {}", chain(&**error)),
                (_, None) => format!("{instance}: not connected"),
            }
        })
        .collect();
    if all.len() > MAX_NAMED {
        reasons.push(format!("and {} more", all.len() - MAX_NAMED));
    }
    reasons.join("; ")
}

/// The error of a call whose time is over. It names what the call was waiting for.
pub(super) fn out_of_time(shared: &Shared, attempts: &mut Attempts, limit: &Limit) -> CallError {
    let service = &shared.service;
    let snapshot = shared.endpointer.snapshot();
    let (kind, reason) = if !attempts.is_empty() {
        let reason = format!("no answer from {service} within {limit}");
        (CallErrorKind::Deadline, reason)
    } else if snapshot.state == SetState::Unknown {
        let registry = &shared.registry;
        let reason = format!("no answer from the registry {registry} for {service} within {limit}");
        (CallErrorKind::RegistrySilent, reason)
    } else {
        let awaited = |endpoint: &Arc<Endpoint>| {
            endpoint.subchannel().watched_health() == WatchedHealth::Awaited
        };
        let missing = if snapshot.all.iter().any(awaited) {
            "has reported its health yet"
        } else {
            "was connected yet"
        };
        let reason = format!(
            "no answer from {service} within {limit}: none of its {} instances {missing}",
            snapshot.all.len()
        );
        (CallErrorKind::Deadline, reason)
    };
    attempts.error(Code::DeadlineExceeded, kind, reason)
}
