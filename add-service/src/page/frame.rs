//! One frame of the page: a snapshot as the page shows it, and what has changed since the frame before.
//!
//! Its size does not grow with the number of instances: beyond [`MAX_INSTANCES`], instances are grouped,
//! and only some of those that receive no calls are shown one by one.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use discovery::{
    ChannelSnapshot, ConnectivityState, Ejection, EjectionPhase, EndpointStatus, InstanceHealth,
    Protection, chain,
};
use serde::Serialize;

/// Maximum number of instances that are shown one by one.
pub(super) const MAX_INSTANCES: usize = 48;
/// Maximum number of instances shown one by one beside groups.
const MAX_NOTABLE: usize = 16;
/// Maximum number of groups. The smallest further ones are one.
const MAX_GROUPS: usize = 24;

/// The state of an instance, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Outlier ejection keeps calls from it.
    Ejected,
    /// It has passed its probe, or is being probed.
    Trial,
    /// It cannot be connected to.
    Unreachable,
    /// It is being connected to.
    Connecting,
    /// The registry no longer offers it, and it is kept as a last resort.
    Protected,
    /// It receives a growing part of its share.
    Warming,
    /// A call connects to it.
    Idle,
    /// It receives its share of the calls.
    Serving,
}

/// Calls that ended since the frame before.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Flow {
    ended: u64,
    failed: u64,
}

/// One instance.
#[derive(Serialize)]
struct Row<'s> {
    id: &'s str,
    address: String,
    state: State,
    #[serde(flatten)]
    flow: Flow,
    per_second: f64,
    failed_per_second: f64,
    p50: Option<f64>,
    p99: Option<f64>,
    in_flight: u32,
    share: f64,
    weight: u32,
    tags: &'s [String],
    zone: Option<&'s str>,
    datacenter: Option<&'s str>,
    health: InstanceHealth,
    ejection: Option<Ejection>,
    protection: Option<Protection>,
    error: Option<String>,
}

/// Several instances of one zone or datacenter.
#[derive(Default, Serialize)]
struct Group<'s> {
    /// `None` for instances without a zone and a datacenter, and for the groups beyond the maximum.
    name: Option<&'s str>,
    instances: usize,
    states: BTreeMap<State, usize>,
    #[serde(flatten)]
    flow: Flow,
    per_second: f64,
    failed_per_second: f64,
    in_flight: u64,
    /// The longest of its instances' medians.
    p50: Option<f64>,
    /// The longest of its instances' 99th percentiles.
    p99: Option<f64>,
}

/// The registry.
#[derive(Serialize)]
struct Registry<'s> {
    url: &'s str,
    /// True once it has answered.
    answered: bool,
    /// Seconds since its last good answer.
    age: Option<f64>,
    error: Option<String>,
    listed: usize,
    unusable: usize,
}

/// Numbers since the frame before, and the retry budget.
#[derive(Serialize)]
struct Calls {
    ok: u64,
    failed: u64,
    retries: u64,
    denied: u64,
    hedges: u64,
    budget: u32,
    reserve: u32,
}

/// The policy, as far as the page shows it.
#[derive(Serialize)]
struct Policy<'s> {
    balancer: &'s str,
    max_attempts: u32,
    timeout: f64,
    budget_share: f64,
    hedging: bool,
    ejection: bool,
    ejection_time: f64,
}

/// See the [module](self).
#[derive(Serialize)]
pub(super) struct Frame<'s> {
    service: &'s str,
    /// Seconds that the flows and numbers cover; zero in the first frame.
    seconds: f64,
    registry: Registry<'s>,
    policy: Policy<'s>,
    calls: Calls,
    instances: usize,
    states: BTreeMap<State, usize>,
    rows: Vec<Row<'s>>,
    /// Empty if every instance has a row.
    groups: Vec<Group<'s>>,
}

/// The totals of a frame, from which the next one subtracts.
pub(super) struct Totals {
    at: tokio::time::Instant,
    calls: discovery::CallTotals,
    endpoints: HashMap<String, Flow>,
}

impl<'s> Frame<'s> {
    /// The frame of a snapshot, and its totals.
    pub(super) fn of(snapshot: &'s ChannelSnapshot, before: Option<&Totals>) -> (Self, Totals) {
        let totals = Totals::of(snapshot);
        let mut states = BTreeMap::new();
        for endpoint in &snapshot.endpoints {
            *states.entry(State::of(endpoint)).or_default() += 1;
        }
        let flow = |endpoint: &EndpointStatus| flow(endpoint, before);
        let all = &snapshot.endpoints;
        let (rows, groups) = if all.len() <= MAX_INSTANCES {
            let rows = all.iter().map(|endpoint| Row::of(endpoint, flow(endpoint)));
            (rows.collect(), Vec::new())
        } else {
            let notable = all
                .iter()
                .filter(|endpoint| State::of(endpoint).is_notable())
                .take(MAX_NOTABLE);
            let rows = notable.map(|endpoint| Row::of(endpoint, flow(endpoint)));
            (rows.collect(), groups(all, flow))
        };
        let frame = Self {
            service: &snapshot.service,
            seconds: before.map_or(0.0, |before| (totals.at - before.at).as_secs_f64()),
            registry: Registry::of(snapshot),
            policy: Policy::of(snapshot),
            calls: Calls::of(snapshot, before),
            instances: all.len(),
            states,
            rows,
            groups,
        };
        (frame, totals)
    }
}

impl Totals {
    fn of(snapshot: &ChannelSnapshot) -> Self {
        let endpoints = snapshot.endpoints.iter().map(|endpoint| {
            let flow = Flow {
                ended: endpoint.calls.ended,
                failed: endpoint.calls.failed,
            };
            (endpoint.instance.id.clone(), flow)
        });
        Self {
            at: tokio::time::Instant::now(),
            calls: snapshot.calls,
            endpoints: endpoints.collect(),
        }
    }
}

impl State {
    fn of(endpoint: &EndpointStatus) -> Self {
        let ejected = endpoint.ejection.map(|ejection| ejection.phase);
        match endpoint.connectivity {
            ConnectivityState::TransientFailure | ConnectivityState::Shutdown => Self::Unreachable,
            ConnectivityState::Connecting => Self::Connecting,
            _ if ejected == Some(EjectionPhase::Ejected) => Self::Ejected,
            _ if ejected.is_some() => Self::Trial,
            _ if endpoint.protected => Self::Protected,
            _ if endpoint.share < 1.0 => Self::Warming,
            ConnectivityState::Ready => Self::Serving,
            _ => Self::Idle,
        }
    }

    /// True if it is shown one by one beside groups.
    fn is_notable(self) -> bool {
        !matches!(self, Self::Serving | Self::Idle)
    }
}

/// The calls of an endpoint since the frame before. One that is new had none there, unless this is the
/// first frame.
fn flow(endpoint: &EndpointStatus, before: Option<&Totals>) -> Flow {
    let Some(before) = before else {
        return Flow::default();
    };
    let old = before.endpoints.get(&endpoint.instance.id);
    let old = old.copied().unwrap_or_default();
    Flow {
        // From zero again if another process has taken the ID.
        ended: since(endpoint.calls.ended, old.ended),
        failed: since(endpoint.calls.failed, old.failed),
    }
}

fn since(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

impl<'s> Row<'s> {
    fn of(endpoint: &'s EndpointStatus, flow: Flow) -> Self {
        let (instance, calls) = (&*endpoint.instance, &endpoint.calls);
        let state = State::of(endpoint);
        Self {
            id: &instance.id,
            address: instance.authority(),
            state,
            flow,
            per_second: calls.per_second,
            failed_per_second: calls.failed_per_second,
            p50: seconds(calls.p50),
            p99: seconds(calls.p99),
            in_flight: endpoint.in_flight,
            share: endpoint.share,
            weight: instance.weight,
            tags: &instance.tags,
            zone: instance.zone.as_deref(),
            datacenter: instance.datacenter.as_deref(),
            health: instance.health,
            ejection: endpoint.ejection,
            protection: endpoint.protection,
            // The error of a connection that works again is history.
            error: (state == State::Unreachable)
                .then(|| match endpoint.health.refusal() {
                    Some(refusal) => Some(refusal.to_owned()),
                    None => endpoint.last_error.as_ref().map(|error| chain(&***error)),
                })
                .flatten(),
        }
    }
}

/// The instances by zone, or by datacenter, the largest groups first.
fn groups(endpoints: &[EndpointStatus], flow: impl Fn(&EndpointStatus) -> Flow) -> Vec<Group<'_>> {
    let mut groups = BTreeMap::<Option<&str>, Group<'_>>::new();
    for endpoint in endpoints {
        let instance = &endpoint.instance;
        let name = instance.zone.as_deref().or(instance.datacenter.as_deref());
        let group = groups.entry(name).or_insert_with(|| Group {
            name,
            ..Group::default()
        });
        group.add(endpoint, flow(endpoint));
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.instances));
    if groups.len() > MAX_GROUPS {
        let rest = groups.split_off(MAX_GROUPS - 1);
        let rest = rest.into_iter().reduce(Group::merge);
        groups.extend(rest.map(|rest| Group { name: None, ..rest }));
    }
    groups
}

impl Group<'_> {
    fn add(&mut self, endpoint: &EndpointStatus, flow: Flow) {
        let calls = &endpoint.calls;
        self.instances += 1;
        *self.states.entry(State::of(endpoint)).or_default() += 1;
        self.flow.ended += flow.ended;
        self.flow.failed += flow.failed;
        self.per_second += calls.per_second;
        self.failed_per_second += calls.failed_per_second;
        self.in_flight += u64::from(endpoint.in_flight);
        self.p50 = longer(self.p50, seconds(calls.p50));
        self.p99 = longer(self.p99, seconds(calls.p99));
    }

    fn merge(mut self, other: Self) -> Self {
        self.instances += other.instances;
        for (state, count) in other.states {
            *self.states.entry(state).or_default() += count;
        }
        self.flow.ended += other.flow.ended;
        self.flow.failed += other.flow.failed;
        self.per_second += other.per_second;
        self.failed_per_second += other.failed_per_second;
        self.in_flight += other.in_flight;
        self.p50 = longer(self.p50, other.p50);
        self.p99 = longer(self.p99, other.p99);
        self
    }
}

fn longer(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

impl<'s> Registry<'s> {
    fn of(snapshot: &'s ChannelSnapshot) -> Self {
        let status = &snapshot.status;
        Self {
            url: &snapshot.registry,
            answered: status.discovered,
            age: status.confirmed.map(|at| at.elapsed().as_secs_f64()),
            error: status.registry_error.as_ref().map(|error| chain(&**error)),
            listed: status.listed,
            unusable: status.unusable,
        }
    }
}

impl Calls {
    fn of(snapshot: &ChannelSnapshot, before: Option<&Totals>) -> Self {
        let now = snapshot.calls;
        let before = before.map_or(now, |before| before.calls);
        Self {
            ok: since(now.ok, before.ok),
            failed: since(now.failed, before.failed),
            retries: since(now.retries, before.retries),
            denied: since(now.retries_denied, before.retries_denied),
            hedges: since(now.hedges, before.hedges),
            budget: snapshot.retry_tokens,
            reserve: snapshot.policy.retry.budget.reserve,
        }
    }
}

impl<'s> Policy<'s> {
    fn of(snapshot: &'s ChannelSnapshot) -> Self {
        let policy = &snapshot.policy;
        let retry = &policy.retry;
        let timeout = retry
            .timeout
            .unwrap_or(discovery::RetryPolicy::DEFAULT_TIMEOUT);
        Self {
            balancer: policy.settings.balancer,
            max_attempts: retry.max_attempts,
            timeout: timeout.as_secs_f64(),
            budget_share: retry.budget.share,
            hedging: retry.hedge.is_some(),
            ejection: policy.ejection.enabled,
            ejection_time: policy.ejection.base_time.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use discovery::{Channel, Instance, registry::StaticRegistry};

    use super::*;

    /// The snapshot of a channel that has made no connection.
    fn snapshot(instances: impl Iterator<Item = Instance>) -> ChannelSnapshot {
        let registry = Arc::new(StaticRegistry::new(instances));
        let channel = Channel::from_registry(registry, "frame").eager(false);
        channel.build().unwrap().snapshot()
    }

    fn instances(count: u32) -> impl Iterator<Item = Instance> {
        (0..count).map(|number| {
            let instance = Instance::new(format!("10.0.{}.{}", number / 250, number % 250), 80);
            let zone = format!("zone-{}", number % 100);
            instance.unwrap().with_zone(zone)
        })
    }

    #[tokio::test]
    async fn the_size_of_a_frame_is_bounded_for_any_number_of_instances() {
        let json = |count| {
            let snapshot = snapshot(instances(count));
            let (frame, totals) = Frame::of(&snapshot, None);
            assert_eq!(totals.endpoints.len(), snapshot.endpoints.len());
            serde_json::to_value(&frame).unwrap()
        };
        let few = json(40);
        assert_eq!(few["rows"].as_array().unwrap().len(), 40);
        assert_eq!(few["groups"].as_array().unwrap().len(), 0);
        let many = json(5_000);
        assert_eq!(many["instances"], 5_000);
        assert_eq!(many["states"]["idle"], 5_000);
        let groups = many["groups"].as_array().unwrap();
        assert_eq!(groups.len(), MAX_GROUPS);
        let sum: u64 = groups
            .iter()
            .map(|g| g["instances"].as_u64().unwrap())
            .sum();
        assert_eq!(sum, 5_000);
        let size = many.to_string().len();
        assert!(size < 16_384, "{size}");
    }

    #[tokio::test]
    async fn a_frame_has_the_calls_since_the_one_before_it() {
        let mut snapshot = snapshot(instances(2));
        let (_, totals) = Frame::of(&snapshot, None);
        snapshot.endpoints[0].calls.ended = 7;
        snapshot.endpoints[0].calls.failed = 2;
        snapshot.calls.retries = 3;
        let (frame, totals) = Frame::of(&snapshot, Some(&totals));
        let flow = |frame: &Frame<'_>, row: usize| {
            let flow = frame.rows[row].flow;
            (flow.ended, flow.failed)
        };
        assert_eq!((flow(&frame, 0), flow(&frame, 1)), ((7, 2), (0, 0)));
        assert_eq!(frame.calls.retries, 3);
        // Another process under the same ID begins at zero.
        snapshot.endpoints[0].calls.ended = 4;
        snapshot.endpoints[0].calls.failed = 0;
        let (frame, _) = Frame::of(&snapshot, Some(&totals));
        assert_eq!(flow(&frame, 0), (4, 0));
        assert_eq!(frame.calls.retries, 0);
    }
}
