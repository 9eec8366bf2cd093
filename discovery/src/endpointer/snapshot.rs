//! What there is to pick from at one moment: immutable, published whole.

use std::sync::Arc;

use tokio::time::{Duration, Instant};

use crate::{
    balance::{Balancer, Context, Picker},
    ejection::{EjectionPolicy, Standing},
    endpoint::{Endpoint, Phase},
    registry::{InstanceSet, RegistryError},
};

/// While endpoints are in slow start, their shares are worked out this often.
const SLOW_START_STEP: Duration = Duration::from_millis(100);

/// Why there is, or is not, something to pick from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
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
    pub(crate) outlook: Outlook,
    pub(crate) confirmed: Option<Instant>,
    pub(crate) registry_error: Option<Arc<RegistryError>>,
    /// The candidates' shares, while some are to get less than a full one.
    slow_start: Option<Vec<f64>>,
    picker: Box<dyn Picker>,
}

impl Snapshot {
    /// Before anything is known.
    pub(crate) fn unknown(balancer: &dyn Balancer) -> Self {
        Self {
            all: Vec::new(),
            candidates: Vec::new(),
            probation: Vec::new(),
            outlook: Outlook::Unknown,
            confirmed: None,
            registry_error: None,
            slow_start: None,
            picker: balancer.picker(&[]),
        }
    }

    pub(crate) fn new(
        selection: Selection,
        all: Vec<Arc<Endpoint>>,
        balancer: &dyn Balancer,
        registry: &InstanceSet,
    ) -> Self {
        let outlook = if !selection.candidates.is_empty() {
            Outlook::Ready
        } else if registry.confirmed.is_none() {
            Outlook::Unknown
        } else if all.is_empty() {
            Outlook::Empty
        } else if all.iter().any(|e| e.link().phase() == Phase::Connecting) {
            Outlook::Pending
        } else {
            Outlook::Down
        };
        Self {
            picker: balancer.picker(&selection.candidates),
            all,
            candidates: selection.candidates,
            probation: selection.probation,
            slow_start: selection.slow_start,
            outlook,
            confirmed: registry.confirmed,
            registry_error: registry.error.clone(),
        }
    }

    /// The balancer's choice among the candidates, of which there must be some.
    pub(crate) fn pick(&self, context: &Context) -> usize {
        let count = self.candidates.len();
        let index = self.picker.pick(&self.candidates, context);
        let index = if index < count { index } else { index % count };
        match &self.slow_start {
            None => index,
            Some(shares) => spare(index, shares, context),
        }
    }
}

/// Passes over an endpoint in slow start as often as its share asks for.
fn spare(index: usize, shares: &[f64], context: &Context) -> usize {
    // Of the random bits those that the policies are least likely to have used.
    #[allow(clippy::cast_possible_truncation)]
    let chance = f64::from((context.random >> 8) as u16) / f64::from(u16::MAX);
    if chance <= shares[index] {
        return index;
    }
    (1..shares.len())
        .map(|step| (index + step) % shares.len())
        .find(|next| shares[*next] >= 1.0)
        .unwrap_or(index)
}

/// Which endpoints may be picked, by what is known of them.
pub(crate) struct Selection {
    candidates: Vec<Arc<Endpoint>>,
    probation: Vec<Arc<Endpoint>>,
    slow_start: Option<Vec<f64>>,
    /// When the selection changes by itself.
    pub(crate) next_change: Option<Instant>,
}

impl Selection {
    pub(crate) fn of(all: &[Arc<Endpoint>], now: Instant, policy: &EjectionPolicy) -> Self {
        // Idle ones are candidates too: being picked is what makes them connect.
        let usable = |e: &Endpoint| matches!(e.link().phase(), Phase::Ready | Phase::Idle);
        let standing = |e: &Endpoint| e.stats().health().standing();
        let admitted = |e: &Endpoint| usable(e) && standing(e) == Standing::Admitted;
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
        let shares: Vec<f64> = candidates
            .iter()
            .map(|e| e.stats().health().slow_start_share(now, policy))
            .collect();
        let slow_start = shares.iter().any(|share| *share < 1.0).then_some(shares);
        Self {
            probation: collect(&|e| usable(e) && standing(e) == Standing::Probation),
            next_change: slow_start.as_ref().map(|_| now + SLOW_START_STEP),
            candidates,
            slow_start,
        }
    }
}
