//! What there is to pick from at one moment: immutable, published whole.

use std::sync::Arc;

use tokio::time::{Duration, Instant};

use crate::{
    balance::{Balancer, Context, Picker},
    ejection::EjectionPolicy,
    endpoint::{ConnectivityState, Endpoint},
    filter::zone::{Locality, Split},
    hash,
    registry::{InstanceSet, RegistryError},
};

/// While endpoints are in slow start, their shares are worked out this often.
const SLOW_START_STEP: Duration = Duration::from_millis(100);
/// How often the policy is asked again where it chose an endpoint that is to be spared.
const SPARING: u32 = 4;

/// Which further words of a pick's random bits the channel takes; the first ones are the policy's.
mod word {
    pub(super) const NEAR: u64 = 8;
    pub(super) const SPARE: u64 = 16;
    pub(super) const AGAIN: u64 = 24;
}

/// Why there is, or is not, something to pick from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetState {
    /// The registry has not answered yet.
    Unknown,
    /// The registry names no instance.
    Empty,
    /// No endpoint is ready, but some are connecting for the first time.
    Pending,
    /// Every endpoint's connection has failed.
    Down,
    /// There are candidates.
    Ready,
}

/// See the [module](self).
pub(crate) struct Snapshot {
    /// All endpoints, sorted by ID.
    pub(crate) all: Vec<Arc<Endpoint>>,
    /// Those to pick from.
    pub(crate) candidates: Vec<Arc<Endpoint>>,
    /// Those that may have one call to show that they are well.
    pub(crate) probation: Vec<Arc<Endpoint>>,
    pub(crate) state: SetState,
    pub(crate) confirmed: Option<Instant>,
    pub(crate) registry_error: Option<Arc<RegistryError>>,
    /// The candidates' shares, while some are to get less than a full one.
    slow_start: Option<Vec<f64>>,
    /// Of the candidates, the first so many are picked from as long as they can carry the calls.
    near: usize,
    picker: Box<dyn Picker>,
    far: Option<Far>,
}

/// The candidates behind those near, up to `end`.
struct Far {
    end: usize,
    /// The share of calls that those near get.
    near_share: f64,
    picker: Box<dyn Picker>,
}

impl Snapshot {
    /// Before anything is known.
    pub(crate) fn unknown(balancer: &dyn Balancer) -> Self {
        Self {
            all: Vec::new(),
            candidates: Vec::new(),
            probation: Vec::new(),
            state: SetState::Unknown,
            confirmed: None,
            registry_error: None,
            slow_start: None,
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
    ) -> Self {
        let state = if !selection.candidates.is_empty() {
            SetState::Ready
        } else if registry.confirmed.is_none() {
            SetState::Unknown
        } else if all.is_empty() {
            SetState::Empty
        } else if all
            .iter()
            .any(|e| e.subchannel().state() == ConnectivityState::Connecting)
        {
            SetState::Pending
        } else {
            SetState::Down
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
            slow_start: selection.slow_start,
            state,
            confirmed: registry.confirmed,
            registry_error: registry.error.clone(),
        }
    }

    /// The balancer's choice among the candidates, of which there must be some.
    pub(crate) fn pick(&self, context: &Context) -> usize {
        let index = self.choose(context);
        match &self.slow_start {
            None => index,
            Some(shares) => self.spare(index, shares, context),
        }
    }

    /// The balancer's choice among those near, or among the others where those near cannot carry
    /// all calls or have all been tried.
    fn choose(&self, context: &Context) -> usize {
        if let Some(far) = &self.far {
            // A key always makes the same choice.
            let seed = context.key.unwrap_or(context.random);
            let all_tried = context.attempt as usize >= self.near;
            if all_tried || unit(hash::nth(seed, word::NEAR)) >= far.near_share {
                let candidates = &self.candidates[self.near..far.end];
                return self.near + within(far.picker.pick(candidates, context), candidates);
            }
        }
        let candidates = &self.candidates[..self.near];
        within(self.picker.pick(candidates, context), candidates)
    }

    /// Passes over an endpoint in slow start as often as its share asks for, and has the balancer
    /// choose again as if it had been tried.
    fn spare(&self, mut index: usize, shares: &[f64], context: &Context) -> usize {
        for turn in 0..SPARING {
            if unit(context.further(word::SPARE + u64::from(turn))) < shares[index] {
                break;
            }
            index = self.choose(&Context {
                random: context.further(word::AGAIN + u64::from(turn)),
                attempt: context.attempt.saturating_add(turn + 1),
                ..*context
            });
        }
        index
    }
}

/// An index beyond the end counts from the start again.
fn within(index: usize, candidates: &[Arc<Endpoint>]) -> usize {
    if index < candidates.len() {
        index
    } else {
        index % candidates.len()
    }
}

/// A number from 0 up to 1, out of random bits.
fn unit(word: u64) -> f64 {
    // 32 bits are chance enough.
    f64::from((word >> 32) as u32) / 4_294_967_296.0
}

/// Which endpoints may be picked, by what is known of them.
pub(crate) struct Selection {
    candidates: Vec<Arc<Endpoint>>,
    probation: Vec<Arc<Endpoint>>,
    slow_start: Option<Vec<f64>>,
    split: Split,
    /// When the selection changes by itself.
    pub(crate) next_change: Option<Instant>,
}

impl Selection {
    pub(crate) fn of(
        all: &[Arc<Endpoint>],
        now: Instant,
        policy: &EjectionPolicy,
        locality: Option<&Locality>,
    ) -> Self {
        // Idle ones are candidates too: being picked is what makes them connect.
        let usable = |e: &Endpoint| {
            matches!(
                e.subchannel().state(),
                ConnectivityState::Ready | ConnectivityState::Idle
            )
        };
        let admitted = |e: &Endpoint| usable(e) && e.stats().health().is_admitted();
        let collect = |filter: &dyn Fn(&Endpoint) -> bool| -> Vec<Arc<Endpoint>> {
            all.iter().filter(|e| filter(e)).cloned().collect()
        };
        let mut candidates = collect(&|e| admitted(e) && e.missing_since().is_none());
        if candidates.is_empty() {
            // Last resorts, in this order: those the registry no longer names, and, rather than
            // fail every call, those that were ejected.
            candidates = collect(&admitted);
        }
        if candidates.is_empty() {
            candidates = collect(&usable);
        }
        let split = match locality {
            Some(locality) => locality.split(&mut candidates),
            None => Split::all(candidates.len()),
        };
        let shares: Vec<f64> = candidates
            .iter()
            .map(|e| e.stats().health().slow_start_share(now, policy))
            .collect();
        let slow_start = shares.iter().any(|share| *share < 1.0).then_some(shares);
        Self {
            probation: collect(&|e| usable(e) && e.stats().health().is_on_probation()),
            next_change: slow_start.as_ref().map(|_| now + SLOW_START_STEP),
            candidates,
            slow_start,
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
            slow_start: None,
            split,
            next_change: None,
        };
        let registry = InstanceSet::default();
        Snapshot::new(selection, candidates, &*policy.balancer(), &registry)
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

    /// One of four in slow start, under every policy: it gets about its share, and what it does not
    /// get falls to all the others alike.
    #[test]
    fn spares_one_in_slow_start_at_nobodys_cost() {
        for policy in policies() {
            let set = endpoints(4);
            let full = counts(&snapshot(policy, set.clone(), Split::all(4)), 40_000, |c| c);
            for share in [0.1, 0.5] {
                let mut slow = snapshot(policy, set.clone(), Split::all(4));
                slow.slow_start = Some(vec![1.0, share, 1.0, 1.0]);
                let counts = counts(&slow, 40_000, |c| c);
                let sum = f64::from(full[1]) * share + f64::from(40_000 - full[1]);
                for index in 0..4 {
                    let share = slow.slow_start.as_ref().unwrap()[index];
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
    fn all_in_slow_start_share_alike() {
        for policy in [Policy::RoundRobin, Policy::Random, Policy::LeastRequest] {
            let mut slow = snapshot(policy, endpoints(4), Split::all(4));
            slow.slow_start = Some(vec![0.1; 4]);
            for count in counts(&slow, 40_000, |c| c) {
                assert!((9_500..10_500).contains(&count), "{policy}: {count}");
            }
        }
    }

    #[test]
    fn those_near_get_their_share_of_calls_under_every_policy() {
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
                assert_eq!(counts[5], 0, "{policy}: beyond the next nearest");
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
    fn a_call_that_all_near_have_failed_goes_further() {
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
