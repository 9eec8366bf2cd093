//! The state of one call: what every attempt sends, the limit in time, and the attempts made so far.

use std::{marker::PhantomData, sync::Arc};

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body::Body;
use tokio::time::Instant;

use super::{
    attempt::AttemptRun,
    limit::Limit,
    pick::{Picked, Picking},
    shared::Shared,
    tracker::Tracker,
};
use crate::{
    BoxError,
    code::Code,
    connection::RequestBody,
    deadline::Deadline,
    hash::HashKey,
    protocol::Protocol,
    retry::{CallError, CallErrorKind, attempts::Attempts, replay::Replay},
};

/// The head of the request, which every attempt repeats.
struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// One call of a client that speaks the protocol `P`.
pub(super) struct Call<'a, P> {
    pub(super) shared: &'a Arc<Shared>,
    head: Head,
    pub(super) replay: Replay,
    pub(super) idempotent: bool,
    pub(super) key: Option<u64>,
    pub(super) limit: Limit,
    /// The time as of the last step that could have taken any: the clock is read once per attempt.
    pub(super) now: Instant,
    pub(super) attempts: Attempts,
    pub(super) rng: Rng,
    protocol: PhantomData<P>,
}

impl<'a, P: Protocol> Call<'a, P> {
    /// Reads the request.
    ///
    /// # Errors
    ///
    /// If its deadline is malformed.
    pub(super) fn new<B>(shared: &'a Arc<Shared>, request: Request<B>) -> Result<Self, CallError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let now = Instant::now();
        let policy = &shared.policy;
        let (parts, body) = request.into_parts();
        let in_header = P::timeout(&parts.headers)
            .map_err(|error| {
                let kind = CallErrorKind::InvalidRequest;
                CallError::new(Code::InvalidArgument, kind, error.to_string())
            })?
            .map(|time| Deadline::of(now, time));
        let extension = parts.extensions.get::<Deadline>().copied();
        let caller = in_header.into_iter().chain(extension).min();
        let replay = Replay::read(body, policy.replay_limit);
        let setting = (!replay.is_streaming()).then_some(policy.timeout);
        let mut headers = parts.headers;
        headers
            .entry(header::USER_AGENT)
            .or_insert_with(|| shared.user_agent.clone());
        Ok(Self {
            idempotent: policy.idempotent.contains(parts.uri.path()),
            limit: Limit::new(now, caller, setting),
            now,
            key: parts.extensions.get::<HashKey>().map(|key| key.0),
            head: Head {
                method: parts.method,
                uri: parts.uri,
                headers,
            },
            replay,
            attempts: Attempts::default(),
            rng: Rng::new(),
            shared,
            protocol: PhantomData,
        })
    }

    /// The parts of the call that a pick depends on.
    pub(super) fn picking(&mut self) -> Picking<'_> {
        Picking {
            shared: self.shared,
            attempts: &mut self.attempts,
            limit: self.limit,
            key: self.key,
            rng: &mut self.rng,
            now: &mut self.now,
        }
    }

    /// Begins an attempt over the picked connection, to be cancelled at `limit`.
    pub(super) fn attempt(
        &mut self,
        picked: Picked,
        body: RequestBody,
        limit: Option<Instant>,
    ) -> AttemptRun<P> {
        let request = self.request(body, limit);
        self.attempts.begin(&picked.endpoint);
        AttemptRun {
            tracker: Tracker::begin(self.shared, picked.endpoint, picked.trial, self.now),
            response: picked.transport.send(request),
            limit,
            caller: self.limit.caller(),
            hold: !self.replay.is_streaming(),
            protocol: PhantomData,
        }
    }

    fn request(&self, body: RequestBody, limit: Option<Instant>) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        let headers = request.headers_mut();
        headers.clone_from(&self.head.headers);
        if let Some(limit) = limit {
            // A server need not go on with an attempt that was cancelled.
            P::set_deadline(headers, limit.saturating_duration_since(self.now));
        }
        if self.attempts.sent() > 0 {
            P::set_previous_attempts(headers, self.attempts.sent());
        }
        request
    }

    /// The time at which an attempt that begins now is cancelled.
    pub(super) fn attempt_limit(&self) -> Option<Instant> {
        let policy = &self.shared.policy;
        let deadline = self.limit.deadline();
        let last = self.attempts.sent() + 1 >= policy.max_attempts;
        if last || !self.idempotent || self.replay.is_streaming() {
            return deadline;
        }
        let own = self.now + policy.attempt_limit();
        Some(deadline.map_or(own, |deadline| deadline.min(own)))
    }

    /// True if an instance that can take a call has not had one of this call's attempts.
    pub(super) fn has_untried(&self) -> bool {
        let snapshot = self.shared.endpointer.snapshot();
        snapshot
            .candidates
            .iter()
            .any(|e| !self.attempts.has_tried(e) && e.transport().is_some())
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
