//! The endpoints at one moment, and the selection of those that calls may pick: immutable, published as
//! a whole.

use std::{ops::Range, sync::Arc};

use tokio::time::{Duration, Instant};

use super::{
    SetPolicy,
    shares::{Shares, share_of},
};
use crate::{
    balance::{Balancer, Context, Picker},
    endpoint::{ConnectivityState, Endpoint},
    filter::zone::Split,
    hash,
    registry::{InstanceSet, RegistryError},
};

/// Interval at which shares are computed while endpoints are in slow start.
const SLOW_START_STEP: Duration = Duration::from_millis(100);
/// The attempt of a call, counted from zero, from which on a far candidate is picked: two that failed
/// near may have the same cause.
const FAR_FROM: u32 = 2;
/// Maximum number of times that the policy picks again after an endpoint in slow start.
const MAX_REPICKS: u32 = 4;

/// The words of a pick's random bits that the snapshot uses; the first ones are the policy's.
mod word {
    pub(super) const NEAR: u64 = 8;
    pub(super) const SKIP: u64 = 16;
    pub(super) const AGAIN: u64 = 24;
    pub(super) const DRAW: u64 = 32;
}

/// The reason why there are candidates, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetState {
    /// The registry has not answered yet.
    Unknown,
    /// The registry offers no instance.
    Empty,
    /// No endpoint is ready, but not all have failed: some are connecting for the first time.
    Pending,
    /// Every endpoint's connection has failed, or its health service does not report `SERVING`.
    Down,
    /// There are candidates.
    Ready,
}

/// See the [module](self).
pub(crate) struct Snapshot {
    /// All endpoints, sorted by ID.
    pub(crate) all: Vec<Arc<Endpoint>>,
    /// The endpoints to pick from.
    pub(crate) candidates: Vec<Arc<Endpoint>>,
    /// The endpoints that may receive a trial call.
    pub(crate) probation: Vec<Arc<Endpoint>>,
    pub(crate) state: SetState,
    /// Number of instances that the registry lists and that may not be picked.
    pub(crate) unusable: usize,
    pub(crate) registry_error: Option<Arc<RegistryError>>,
    /// The candidates' shares, if some of them are in slow start or warm up.
    shares: Option<Shares>,
    /// Number of candidates, from the first, that come first as long as they have the capacity.
    near: usize,
    picker: Box<dyn Picker>,
    far: Option<Far>,
}

/// The candidates after the near ones, up to `end`.
struct Far {
    end: usize,
    /// The near candidates' share of the calls.
    near_share: f64,
    picker: Box<dyn Picker>,
}

impl Snapshot {
    /// The snapshot before the first answer of the registry.
    pub(crate) fn unknown(balancer: &dyn Balancer) -> Self {
        Self {
            all: Vec::new(),
            candidates: Vec::new(),
            probation: Vec::new(),
            state: SetState::Unknown,
            unusable: 0,
            registry_error: None,
            shares: None,
            near: 0,
            picker: balancer.picker(&[]),
            far: None,
        }
    }

    pub(crate) fn new(
        selection: Selection,
        all: Vec<Arc<Endpoint>>,
        balancer: &dyn Balancer,
        registry: &InstanceSet,
        unusable: usize,
    ) -> Self {
        let state = if !selection.candidates.is_empty() {
            SetState::Ready
        } else if registry.confirmed.is_none() {
            SetState::Unknown
        } else if all.is_empty() {
            SetState::Empty
        } else if all.iter().all(|e| has_failed(e)) {
            SetState::Down
        } else {
            // One may have become ready since the selection: its change is on the way.
            SetState::Pending
        };
        let Split { near, end, share } = selection.split;
        Self {
            near,
            picker: balancer.picker(&selection.candidates[..near]),
            far: (end > near).then(|| Far {
                end,
                near_share: share,
                picker: balancer.picker(&selection.candidates[near..end]),
            }),
            all,
            candidates: selection.candidates,
            probation: selection.probation,
            shares: selection.shares,
            state,
            unusable,
            registry_error: registry.error.clone(),
        }
    }

    /// The balancer's choice among the candidates. There must be at least one.
    pub(crate) fn pick(&self, context: &Context) -> usize {
        let index = self.choose(context, context.attempt);
        match &self.shares {
            None => index,
            Some(shares) => self.skip(index, shares, context),
        }
    }

    /// The balancer's choice among the near candidates, or among the far ones if the near ones lack
    /// the capacity for all calls, have all been tried, or failed in `sent` attempts.
    fn choose(&self, context: &Context, sent: u32) -> usize {
        if let Some(far) = &self.far {
            // The same key makes the same choice each time.
            let seed = context.key.unwrap_or(context.random);
            let all_tried = sent >= FAR_FROM || context.attempt as usize >= self.near;
            if all_tried || unit(hash::nth(seed, word::NEAR)) >= far.near_share {
                let candidates = &self.candidates[self.near..far.end];
                return self.near + within(far.picker.pick(candidates, context), candidates);
            }
        }
        let candidates = &self.candidates[..self.near];
        within(self.picker.pick(candidates, context), candidates)
    }

    /// Skips an endpoint in slow start unless its share accepts the pick, and picks again as if it had
    /// been tried.
    fn skip(&self, mut index: usize, shares: &Shares, context: &Context) -> usize {
        shares.begin(&self.part(index));
        for turn in 0..=MAX_REPICKS {
            let random = unit(context.further(word::SKIP + u64::from(turn)));
            if shares.accepts(index, &self.part(index), random) {
                return index;
            }
            let again = Context {
                random: context.further(word::AGAIN + u64::from(turn)),
                attempt: context.attempt.saturating_add(turn + 1),
                ..*context
            };
            index = self.choose(&again, context.attempt);
        }
        shares.draw(&self.part(index), unit(context.further(word::DRAW)))
    }

    /// The near candidates, or the far ones, whichever this one is of.
    fn part(&self, index: usize) -> Range<usize> {
        match &self.far {
            Some(far) if index >= self.near => self.near..far.end,
            _ => 0..self.near,
        }
    }
}

fn has_failed(endpoint: &Endpoint) -> bool {
    matches!(
        endpoint.connectivity(),
        ConnectivityState::TransientFailure | ConnectivityState::Shutdown
    )
}

/// An index beyond the end counts from the start again.
fn within(index: usize, candidates: &[Arc<Endpoint>]) -> usize {
    if index < candidates.len() {
        index
    } else {
        index % candidates.len()
    }
}

/// A number from 0 to below 1, from random bits.
fn unit(word: u64) -> f64 {
    // 32 bits are random enough.
    f64::from((word >> 32) as u32) / 4_294_967_296.0
}

/// The endpoints that may be picked, by their connection and their ejection state.
pub(crate) struct Selection {
    candidates: Vec<Arc<Endpoint>>,
    probation: Vec<Arc<Endpoint>>,
    shares: Option<Shares>,
    split: Split,
    /// The time at which the selection changes without an event.
    pub(crate) next_change: Option<Instant>,
}

impl Selection {
    /// The near candidates, and the far ones: those of each picker. An empty part is left out.
    #[cfg(feature = "orca")]
    pub(super) fn parts(&self) -> impl Iterator<Item = &[Arc<Endpoint>]> {
        let Split { near, end, .. } = self.split;
        let parts = [&self.candidates[..near], &self.candidates[near..end]];
        parts.into_iter().filter(|part| !part.is_empty())
    }

    pub(crate) fn of(all: &[Arc<Endpoint>], now: Instant, policy: &SetPolicy) -> Self {
        // Idle endpoints are candidates: a pick starts their connection.
        let usable = |e: &Endpoint| {
            matches!(
                e.connectivity(),
                ConnectivityState::Ready | ConnectivityState::Idle
            )
        };
        let admitted = |e: &Endpoint| usable(e) && e.stats().health().is_admitted();
        let collect = |filter: &dyn Fn(&Endpoint) -> bool| -> Vec<Arc<Endpoint>> {
            all.iter().filter(|e| filter(e)).cloned().collect()
        };
        let mut candidates = collect(&|e| admitted(e) && e.last_resort().is_none());
        if candidates.is_empty() {
            // Last resorts, in this order: endpoints that the registry no longer offers, and ejected
            // ones rather than a failure of every call.
            candidates = collect(&admitted);
        }
        if candidates.is_empty() {
            candidates = collect(&usable);
        }
        let split = match &policy.locality {
            Some(locality) => locality.split(&mut candidates),
            None => Split::all(candidates.len()),
        };
        for endpoint in &candidates {
            endpoint.stats().begin_warm_up(now);
        }
        let share = |e: &Arc<Endpoint>| share_of(e, now, &policy.ejection, &policy.warm_up);
        let shares: Vec<f64> = candidates.iter().map(share).collect();
        let changes = shares.iter().any(|share| *share < 1.0);
        let offset = fastrand::f64();
        Self {
            probation: collect(&|e| usable(e) && e.stats().health().is_on_probation()),
            next_change: changes.then(|| now + SLOW_START_STEP),
            shares: Shares::of(&candidates, shares, policy.balancer_name, offset),
            candidates,
            split,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{
        Policy,
        testing::{self, endpoints},
    };

    fn snapshot(policy: Policy, candidates: Vec<Arc<Endpoint>>, split: Split) -> Snapshot {
        let selection = Selection {
            candidates: candidates.clone(),
            probation: Vec::new(),
            shares: None,
            split,
            next_change: None,
        };
        let registry = InstanceSet::default();
        Snapshot::new(selection, candidates, &*policy.balancer(), &registry, 0)
    }

    fn counts(snapshot: &Snapshot, picks: u32, with: impl Fn(Context) -> Context) -> Vec<u32> {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut counts = vec![0; snapshot.candidates.len()];
        for _ in 0..picks {
            counts[snapshot.pick(&with(testing::context(&mut rng)))] += 1;
        }
        counts
    }

    fn policies() -> impl Iterator<Item = Policy> {
        Policy::NAMES.iter().map(|name| name.parse().unwrap())
    }

    #[test]
    fn instances_that_connect_after_the_selection_are_not_called_unreachable() {
        // No endpoint has failed, and the selection has none.
        let selection = Selection {
            candidates: Vec::new(),
            probation: Vec::new(),
            shares: None,
            split: Split::all(0),
            next_change: None,
        };
        let registry = InstanceSet {
            confirmed: Some(Instant::now().into_std()),
            ..InstanceSet::default()
        };
        let balancer = Policy::RoundRobin.balancer();
        let snapshot = Snapshot::new(selection, endpoints(3), &*balancer, &registry, 0);
        assert_eq!(snapshot.state, SetState::Pending);
    }

    /// One of four is in slow start, under every policy: it gets about its share, and the others share
    /// the rest equally.
    #[test]
    fn one_in_slow_start_gets_its_share_and_the_others_the_rest() {
        for policy in policies() {
            let set = endpoints(4);
            let full = counts(&snapshot(policy, set.clone(), Split::all(4)), 40_000, |c| c);
            for share in [0.1, 0.5] {
                let mut slow = snapshot(policy, set.clone(), Split::all(4));
                let shares = vec![1.0, share, 1.0, 1.0];
                slow.shares = Shares::of(&set, shares.clone(), Some(policy), 0.5);
                let counts = counts(&slow, 40_000, |c| c);
                let sum = f64::from(full[1]) * share + f64::from(40_000 - full[1]);
                for index in 0..4 {
                    let share = shares[index];
                    let expected = 40_000.0 * f64::from(full[index]) * share / sum;
                    let got = f64::from(counts[index]);
                    assert!(
                        (got - expected).abs() < 0.1 * expected + 150.0,
                        "{policy}: {counts:?} beside {full:?} with a share of {share}"
                    );
                }
            }
        }
    }

    #[test]
    fn shares_count_relative_to_the_greatest() {
        let set = endpoints(4);
        let shares = |shares: [f64; 4]| Shares::of(&set, shares.to_vec(), None, 0.5);
        assert!(shares([0.1; 4]).is_none());
        let mut slow = snapshot(Policy::RoundRobin, set.clone(), Split::all(4));
        slow.shares = shares([0.2, 0.1, 0.2, 0.2]);
        let counts = counts(&slow, 42_000, |c| c);
        assert!((5_600..6_400).contains(&counts[1]), "{counts:?}");
    }

    /// Calls do not end, so an endpoint with a small share always has fewer in flight than the others.
    #[test]
    fn a_policy_that_prefers_idle_endpoints_gives_one_in_slow_start_no_more_than_its_share() {
        for policy in [Policy::LeastRequest, Policy::PeakEwma] {
            let set = endpoints(4);
            let mut slow = snapshot(policy, set.clone(), Split::all(4));
            slow.shares = Shares::of(&set, vec![1.0, 1.0, 1.0, 0.25], Some(policy), 0.5);
            let mut rng = fastrand::Rng::with_seed(5);
            for _ in 0..13_000 {
                let picked = slow.pick(&testing::context(&mut rng));
                set[picked].stats().begin();
            }
            let calls = set[3].stats().in_flight();
            assert!((950..1_050).contains(&calls), "{policy}: {calls} of 13000");
        }
    }

    #[test]
    fn most_in_slow_start_leave_the_others_no_more_than_their_part() {
        for policy in [Policy::RoundRobin, Policy::Random, Policy::LeastRequest] {
            let set = endpoints(10);
            let mut slow = snapshot(policy, set.clone(), Split::all(10));
            let mut shares = vec![0.1; 10];
            shares[4] = 1.0;
            slow.shares = Shares::of(&set, shares, Some(policy), 0.5);
            let counts = counts(&slow, 19_000, |c| c);
            assert!((9_500..10_500).contains(&counts[4]), "{policy}: {counts:?}");
        }
    }

    #[test]
    fn near_candidates_get_their_share_of_calls_under_every_policy() {
        for policy in policies() {
            for share in [0.0, 0.3, 1.0] {
                let split = Split {
                    near: 2,
                    end: 5,
                    share,
                };
                let snapshot = snapshot(policy, endpoints(6), split);
                let counts = counts(&snapshot, 10_000, |c| c);
                let near = f64::from(counts[0] + counts[1]) / 10_000.0;
                assert!((near - share).abs() < 0.02, "{policy}: {counts:?}");
                assert_eq!(counts[5], 0, "{policy}: behind the next nearest");
            }
        }
    }

    #[test]
    fn a_key_makes_the_same_choice_between_near_and_far() {
        let split = Split {
            near: 3,
            end: 6,
            share: 0.5,
        };
        let snapshot = snapshot(Policy::ConsistentHash, endpoints(6), split);
        let mut far = 0;
        for key in 0..100 {
            let counts = counts(&snapshot, 20, |context| context.with_key(key));
            assert!(counts.contains(&20), "{counts:?}");
            far += counts[3..].iter().sum::<u32>() / 20;
        }
        assert!((30..70).contains(&far), "{far} of 100 keys are far");
    }

    #[test]
    fn a_call_that_failed_twice_near_goes_to_a_far_candidate() {
        let split = Split {
            near: 3,
            end: 5,
            share: 1.0,
        };
        let snapshot = snapshot(Policy::RoundRobin, endpoints(5), split);
        let second = counts(&snapshot, 100, |context| context.with_attempt(1));
        assert_eq!(second[3..], [0, 0]);
        let third = counts(&snapshot, 100, |context| context.with_attempt(2));
        assert_eq!(third[..3], [0, 0, 0]);
    }

    #[test]
    fn a_call_that_failed_on_all_near_candidates_goes_to_a_far_one() {
        let split = Split {
            near: 2,
            end: 4,
            share: 1.0,
        };
        let snapshot = snapshot(Policy::RoundRobin, endpoints(4), split);
        let third = |context: Context| context.with_attempt(2);
        assert_eq!(counts(&snapshot, 100, third)[..2], [0, 0]);
    }
}
