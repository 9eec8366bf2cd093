//! The state of one call: what every attempt sends, the limit in time, and the attempts made so far.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body::Body;
use tokio::time::Instant;

use super::{
    attempt::{AttemptRun, FailedAttempt, OpenRequest, Sent},
    limit::Limit,
    method_policy::MethodPolicy,
    options::{CallOptions, Target},
    pick::{Picked, Picking},
    record::{CallRecord, Sent as SentBody},
    shared::Shared,
    size_limit::SizeLimit,
    tracker::Tracker,
};
use crate::{
    BoxError,
    code::Code,
    connection::RequestBody,
    deadline::Deadline,
    ejection::Classification,
    endpoint::Endpoint,
    hash::HashKey,
    protocol::Protocol,
    retry::{
        CallError, CallErrorKind, Hedge, Progress, attempts::Attempts, max_wrong_servers,
        replay::Replay, usual::MethodSlot,
    },
};

/// An attempt that no server processed is repeated while time is left; this bounds a call that has
/// no deadline.
pub(super) const MAX_TRANSPARENT_RETRIES: usize = 64;

/// The head of the request, which every attempt repeats.
struct Head {
    method: Method,
    uri: Uri,
    /// The headers of the first attempt, until it begins.
    first: Option<HeaderMap>,
    /// The headers of later attempts, as a list, which takes fewer instructions to make than a map.
    kept: Vec<(HeaderName, HeaderValue)>,
}

impl Head {
    fn new(method: Method, uri: Uri, headers: HeaderMap) -> Self {
        let kept = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        Self {
            method,
            uri,
            kept: kept.collect(),
            first: Some(headers),
        }
    }

    /// The headers of the next attempt.
    fn headers(&mut self) -> HeaderMap {
        self.first.take().unwrap_or_else(|| {
            let mut headers = HeaderMap::with_capacity(self.kept.len());
            for (name, value) in &self.kept {
                headers.append(name.clone(), value.clone());
            }
            headers
        })
    }
}

fn emptied(mut extensions: Extensions) -> Extensions {
    extensions.clear();
    extensions
}

/// Ends the record of a call that has failed.
pub(super) fn failed(shared: &Shared, record: &mut CallRecord, error: CallError) -> CallError {
    record.fail(&error, Instant::now());
    shared.counters.failure(error.code);
    error
}

/// One call of a client that speaks the protocol `P`.
#[allow(
    clippy::struct_excessive_bools,
    reason = "facts that do not exclude each other"
)]
pub(super) struct Call<P> {
    pub(super) shared: Arc<Shared>,
    /// The policy of the method, as of the start of the call.
    pub(super) policy: Arc<MethodPolicy>,
    head: Head,
    /// The map of the request's extensions, emptied, for the first response.
    extensions: Extensions,
    method: MethodSlot,
    pub(super) replay: Replay,
    /// True if the call has one request message and one response message, as far as is known when it
    /// begins: a server stream is only known by its descriptor.
    unary: bool,
    /// True if the response is held back until its first message is whole.
    hold: bool,
    pub(super) idempotent: bool,
    pub(super) hedge: Option<Hedge>,
    wait_for_ready: bool,
    /// The instances that the caller asks for.
    target: Option<Target>,
    pub(super) key: Option<u64>,
    pub(super) limit: Limit,
    /// The time as of the last step that could have taken any: the clock is read once per attempt.
    pub(super) now: Instant,
    pub(super) attempts: Attempts,
    /// The attempts at instances that do not have the method.
    wrong_servers: Vec<Tracker>,
    pub(super) rng: Rng,
    pub(super) record: CallRecord,
    protocol: PhantomData<P>,
}

impl<P: Protocol> Call<P> {
    /// Begins the call: reads the request.
    ///
    /// # Errors
    ///
    /// If its deadline is malformed, or its message too long.
    pub(super) fn begin<B>(shared: Arc<Shared>, request: Request<B>) -> Result<Box<Self>, CallError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let mut record = CallRecord::begin::<P>(
            shared.target.metrics(),
            &shared.service,
            &parts.method,
            path,
        );
        let (now, hash) = (record.begun(), record.hash());
        let policies = shared.policies.load();
        let policy = Arc::clone(policies.of(&parts.method, path, hash));
        let key = parts.extensions.get::<HashKey>().copied();
        let key = key
            .or_else(|| policies.key(&parts.headers))
            .map(|key| key.0);
        drop(policies);
        let in_header = match P::timeout(&parts.headers) {
            Ok(time) => time.map(|time| Deadline::of(now, time)),
            Err(error) => {
                let kind = CallErrorKind::InvalidRequest;
                let error = CallError::new(Code::InvalidArgument, kind, error.to_string());
                return Err(failed(&shared, &mut record, error));
            }
        };
        let extension = parts.extensions.get::<Deadline>().copied();
        let caller = in_header.into_iter().chain(extension).min();
        let options = parts.extensions.get::<CallOptions>();
        let own_timeout = options.and_then(|options| options.timeout);
        let replay_limit = policy.retry.replay_limit;
        let replay = match policy.max_request {
            None => Replay::read::<P::Message, B>(body, replay_limit),
            Some(max) => {
                let body = SizeLimit::<_, P::Message>::new(Box::pin(body), max);
                let found = body.found();
                let replay = Replay::read::<P::Message, _>(body, replay_limit);
                if let Some(error) = found.get() {
                    let reason = format!("call to {}: {error}", shared.service);
                    let kind = CallErrorKind::MessageTooLong;
                    let error = CallError::new(Code::ResourceExhausted, kind, reason);
                    return Err(failed(&shared, &mut record, error));
                }
                replay
            }
        };
        let declared_stream = policy.streaming;
        let unary = replay.is_unary() && !declared_stream;
        let limit = if unary {
            Limit::unary(now, caller, own_timeout.or(policy.retry.timeout))
        } else {
            let given = own_timeout.or(policy.stream_timeout);
            let given = given.map(|time| Deadline::of(now, time));
            Limit::stream(now, caller.into_iter().chain(given).min())
        };
        let asked = options.and_then(|options| options.target.clone());
        let target = asked.or_else(|| policy.target(&parts.headers, key));
        let mut headers = parts.headers;
        headers
            .entry(header::USER_AGENT)
            .or_insert_with(|| shared.user_agent.clone());
        Ok(Box::new(Self {
            method: MethodSlot::of(hash),
            idempotent: options
                .and_then(|options| options.idempotent)
                .or(policy.idempotent)
                .unwrap_or_else(|| P::is_idempotent(&parts.method, &headers)),
            hedge: options
                .and_then(|options| options.hedge)
                .unwrap_or(policy.retry.hedge),
            wait_for_ready: options
                .and_then(|options| options.wait_for_ready)
                .unwrap_or(policy.wait_for_ready),
            extensions: emptied(parts.extensions),
            target,
            unary,
            hold: !replay.is_streaming() && !declared_stream,
            limit,
            now,
            key,
            head: Head::new(parts.method, parts.uri, headers),
            replay,
            attempts: Attempts::default(),
            wrong_servers: Vec::new(),
            rng: Rng::new(),
            record,
            shared,
            policy,
            protocol: PhantomData,
        }))
    }

    /// The parts of the call that a pick depends on.
    pub(super) fn picking(&mut self) -> Picking<'_> {
        Picking {
            shared: &self.shared,
            attempts: &mut self.attempts,
            limit: self.limit,
            wait_for_ready: self.wait_for_ready,
            target: self.target.as_ref(),
            key: self.key,
            rng: &mut self.rng,
            now: &mut self.now,
        }
    }

    /// Begins an attempt over the picked connection.
    pub(super) fn attempt(&mut self, picked: Picked, body: RequestBody) -> (AttemptRun<P>, Sent) {
        let mut request = self.request(body);
        let overdue = self.overdue();
        let sent = match self.replay.one_shot() {
            None => SentBody::Whole(self.replay.size::<P::Message>().unwrap_or(0)),
            Some(body) => SentBody::Stream(Arc::clone(body)),
        };
        let record = self.record.attempt(
            self.head.uri.path(),
            picked.endpoint().instance(),
            self.attempts.sent(),
            sent,
            self.now,
        );
        if let Some(propagate) = &self.shared.propagate {
            record.propagate(&**propagate, request.headers_mut());
        }
        self.attempts.begin(picked.endpoint());
        let sent = picked.transport.send(request);
        let attempt = AttemptRun {
            tracker: Tracker::begin(picked.place, self.method, self.now),
            overdue,
            is_overdue: false,
            learns: self.policy.retry.learn_attempt_timeout,
            limit: self.limit.deadline(),
            caller: self.limit.caller(),
            request: OpenRequest {
                body: self.replay.one_shot().cloned(),
                is_streaming: self.replay.is_streaming(),
            },
            extensions: std::mem::take(&mut self.extensions),
            record,
            protocol: PhantomData,
        };
        (attempt, sent)
    }

    /// The size up to which the first message is held back; `None` to hand out the response with its
    /// headers.
    pub(super) fn held(&self) -> Option<usize> {
        self.hold.then_some(self.policy.retry.replay_limit)
    }

    fn request(&mut self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        let headers = request.headers_mut();
        *headers = self.head.headers();
        if let Some(deadline) = self.limit.caller() {
            // Servers apply it to the whole response, so it must not be the limit of an attempt.
            P::set_deadline(headers, deadline.saturating_duration_since(self.now));
        }
        if self.attempts.sent() > 0 {
            P::set_previous_attempts(headers, self.attempts.sent());
        }
        P::prepare(&mut request, self.idempotent);
        request
    }

    /// The time at which an attempt that begins now is overdue; `None` if no other may begin then.
    fn overdue(&self) -> Option<Instant> {
        let policy = &self.policy.retry;
        let last = self.attempts.sent() + 1 >= policy.max_attempts;
        (self.idempotent && self.unary && !last).then(|| self.now + self.overdue_after())
    }

    /// The time after which an attempt that another one may follow is overdue.
    pub(super) fn overdue_after(&self) -> Duration {
        let learnt = self.shared.times.get(self.method);
        self.policy.retry.overdue_after(learnt)
    }

    /// The time at which a second attempt begins while the first one, begun now, is under way.
    pub(super) fn hedge_at(&self) -> Option<Instant> {
        let last = self.attempts.sent() >= self.policy.retry.max_attempts;
        let delay = self.shared.hedge_delay(self.hedge?, self.method)?;
        (self.idempotent && self.unary && !last).then(|| self.now + delay)
    }

    /// The progress of the call when an attempt has failed.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            attempts: self.attempts.sent(),
            replayable: self.replay.attempt().is_some(),
            idempotent: self.idempotent,
            untried_left: self.has_untried(),
            wrong_servers: self.wrong_servers.len(),
            max_wrong_servers: max_wrong_servers(self.is_method_known()),
        }
    }

    /// True if an instance is known to have answered the method.
    pub(super) fn is_method_known(&self) -> bool {
        self.shared.usual.get(self.method).is_some()
    }

    /// Adds a failed attempt to the call's record.
    pub(super) fn note(&mut self, failed: &mut FailedAttempt) {
        let trailers = failed
            .answer
            .as_mut()
            .map(|answer| std::mem::take(&mut answer.trailers));
        self.wrong_servers.extend(failed.wrong_server.take());
        self.attempts.fail(
            &failed.endpoint,
            failed.begun,
            failed.failure,
            std::mem::take(&mut failed.reason),
            trailers,
        );
    }

    /// True if all attempts were made at instances that do not have the method.
    pub(super) fn all_are_wrong(&self) -> bool {
        self.attempts.failures() == self.wrong_servers.len()
    }

    /// Counts against the instances that do not have the method, as another one has answered it.
    pub(super) fn blame_wrong_servers(&mut self) {
        for tracker in self.wrong_servers.drain(..) {
            tracker.observe(true);
            tracker.settle(Classification::Status);
        }
    }

    /// Forgets that an instance has answered the method.
    pub(super) fn forget_method(&self) {
        self.shared.usual.forget(self.method);
    }

    /// True if an instance that can take a call has not had one of this call's attempts.
    fn has_untried(&self) -> bool {
        let snapshot = self.shared.endpointer.snapshot();
        snapshot.candidates.iter().any(|e| {
            let is_open = || e.transport().is_some_and(|open| open.capacity() > 0);
            let untried = self.may_use(e) && !self.attempts.has_tried(e);
            untried && is_open() && !e.stats().is_at_limit()
        })
    }

    /// False if the caller asks for other instances only.
    fn may_use(&self, endpoint: &Endpoint) -> bool {
        self.target
            .as_ref()
            .is_none_or(|target| target.fallback || target.filter.accepts(endpoint.instance()))
    }

    /// Ends the call with this reason and the attempts made.
    pub(super) fn error(
        &mut self,
        code: Code,
        kind: CallErrorKind,
        reason: impl Into<String>,
    ) -> CallError {
        self.attempts.error(code, kind, reason)
    }
}
