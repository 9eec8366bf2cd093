//! The pick of a call that says where it goes.
//!
//! Among the instances that its filter accepts, the one with a call's key goes to the same instance each
//! time (rendezvous hashing); a call without a key goes to the one of two random ones with fewer calls in
//! flight. The cost grows with the set, and only such calls have it.

use std::sync::Arc;

use super::{
    options::Target,
    pick::{Choice, Picked, Picking},
};
use crate::{
    endpoint::{ConnectivityState, Endpoint},
    endpointer::Snapshot,
    hash,
    retry::CallErrorKind,
};

impl Picking<'_> {
    /// Looks for an instance that the target accepts, in the order of admitted ones, ejected ones, ones
    /// that the call has tried, and, with a fallback, all others. `None` is the fallback.
    pub(super) fn choose_among(&mut self, target: &Target, snapshot: &Snapshot) -> Option<Choice> {
        let accepted = |endpoint: &&Arc<Endpoint>| target.filter.accepts(endpoint.instance());
        let all: Vec<_> = snapshot.all.iter().filter(accepted).collect();
        let admitted = |endpoint: &Endpoint| endpoint.stats().health().is_admitted();
        for is_wanted in [
            &(|it: &Endpoint| admitted(it) && !self.attempts.has_tried(it))
                as &dyn Fn(&Endpoint) -> bool,
            &(|it: &Endpoint| !target.fallback && !self.attempts.has_tried(it)),
            &(|it: &Endpoint| !target.fallback && admitted(it)),
            &(|_: &Endpoint| !target.fallback),
        ] {
            loop {
                let usable: Vec<_> = all
                    .iter()
                    .filter(|endpoint| is_wanted(endpoint))
                    .filter(|endpoint| !endpoint.stats().is_at_limit())
                    .filter_map(|endpoint| Some((*endpoint, endpoint.transport()?)))
                    .collect();
                if usable.is_empty() {
                    break;
                }
                let endpoints: Vec<_> = usable.iter().map(|(endpoint, _)| *endpoint).collect();
                let (first, second) = (self.rng.u64(..), self.rng.u64(..));
                let index = one_of(&endpoints, self.key, first, second);
                let (endpoint, transport) = usable.into_iter().nth(index)?;
                // Without a place, other picks have reached its limit since the look.
                if let Some(picked) = Picked::take(self.shared, endpoint, transport) {
                    return Some(Choice::Picked(picked));
                }
            }
        }
        for endpoint in &all {
            if endpoint.subchannel().state() == ConnectivityState::Idle {
                self.shared.endpointer.wake(endpoint);
            }
        }
        if target.fallback {
            return None;
        }
        let connecting = |endpoint: &&Arc<Endpoint>| {
            endpoint.subchannel().state() == ConnectivityState::Connecting
        };
        if all.iter().any(connecting) {
            return Some(Choice::Wait);
        }
        let is_at_limit =
            |it: &&Arc<Endpoint>| it.stats().is_at_limit() && it.transport().is_some();
        if all.iter().any(is_at_limit) {
            return Some(Choice::Limited);
        }
        let service = &self.shared.service;
        Some(if all.is_empty() && snapshot.all.is_empty() {
            // The reason is that of any call.
            return None;
        } else if all.is_empty() {
            Choice::Nothing(
                CallErrorKind::NoInstances,
                format!(
                    "none of the {} instances of {service} is one that the call requires",
                    snapshot.all.len()
                ),
            )
        } else {
            self.shared.endpointer.urge();
            Choice::Nothing(
                CallErrorKind::AllUnreachable,
                format!(
                    "none of the {} instances of {service} that the call requires can be reached",
                    all.len()
                ),
            )
        })
    }
}

/// The index of the endpoint for a call.
fn one_of(endpoints: &[&Arc<Endpoint>], key: Option<u64>, first: u64, second: u64) -> usize {
    if let Some(key) = key {
        let rank = |endpoint: &Endpoint| {
            hash::nth(key ^ hash::bytes(endpoint.instance().id.as_bytes()), 0)
        };
        let ranked = endpoints.iter().enumerate();
        return ranked
            .max_by_key(|(_, endpoint)| rank(endpoint))
            .map_or(0, |(index, _)| index);
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "less than the number of endpoints"
    )]
    let draw = |word: u64| (word % endpoints.len().max(1) as u64) as usize;
    let (first, second) = (draw(first), draw(second));
    let load = |index: usize| endpoints[index].stats().in_flight();
    if load(second) < load(first) {
        second
    } else {
        first
    }
}
