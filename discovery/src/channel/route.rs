//! Routes of a service config: the instances that a call may use, by its metadata.

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;

use super::options::{InstanceFilter, Target};
use crate::config::{Destination, RouteConfig};

/// A rule for the calls whose metadata match.
#[derive(Debug)]
pub(crate) struct Route {
    pub(super) config: RouteConfig,
    /// The target of each part of the split, and the end of its share of the cycle.
    parts: Vec<(u64, Target)>,
    /// The sum of the weights.
    cycle: u64,
    /// Coprime to the cycle: the parts take turns instead of following in runs.
    stride: u64,
    turn: AtomicU64,
}

impl Route {
    pub(super) fn new(config: &RouteConfig) -> Self {
        let mut end = 0;
        let parts = config.split.iter().map(|part| {
            end += u64::from(part.weight);
            (end, target(part))
        });
        let parts = parts.collect();
        let cycle = end.max(1);
        Self {
            config: config.clone(),
            parts,
            cycle,
            stride: stride(cycle),
            turn: AtomicU64::new(0),
        }
    }

    /// True if the call has the metadata.
    pub(super) fn matches(&self, headers: &HeaderMap) -> bool {
        self.config.metadata.iter().all(|(name, wanted)| {
            let mut values = headers.get_all(name).iter();
            values.any(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
        })
    }

    /// The target of the next call. Calls with the same key have the same one.
    pub(super) fn target(&self, key: Option<u64>) -> Option<Target> {
        let turn = match key {
            Some(key) => key % self.cycle,
            None => {
                self.turn.fetch_add(1, Ordering::Relaxed) % self.cycle * self.stride % self.cycle
            }
        };
        let part = self.parts.iter().find(|(end, _)| turn < *end);
        part.map(|(_, target)| target.clone())
    }
}

/// The number nearest to the golden section of the cycle that is coprime to it.
fn stride(cycle: u64) -> u64 {
    fn common(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { common(b, a % b) }
    }
    let golden = (cycle * 618 / 1_000).max(1);
    (golden..=cycle)
        .find(|stride| common(cycle, *stride) == 1)
        .unwrap_or(1)
}

fn target(part: &Destination) -> Target {
    let mut filter = InstanceFilter::of(|_| true);
    for tag in &part.tags {
        filter = filter.and(InstanceFilter::tag(tag));
    }
    for (key, value) in &part.metadata {
        filter = filter.and(InstanceFilter::meta(key, value));
    }
    if let Some(id) = &part.id {
        filter = filter.and(InstanceFilter::id(id));
    }
    Target {
        filter,
        fallback: part.fallback,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_exact_within_a_cycle_and_its_parts_take_turns() {
        let part = |weight| Destination {
            weight,
            id: Some(weight.to_string()),
            ..Destination::default()
        };
        let route = Route::new(&RouteConfig {
            names: Vec::new(),
            metadata: Vec::new(),
            split: vec![part(95), part(5), part(0)],
        });
        let five = crate::instance::Instance::parse("a:1")
            .unwrap()
            .with_id("5");
        let mut last = 0;
        let mut count = 0;
        for turn in 1..=20_000 {
            if route.target(None).unwrap().filter.accepts(&five) {
                count += 1;
                assert!(turn - last <= 40, "none in {} calls", turn - last);
                last = turn;
            }
        }
        assert_eq!(count, 1_000);
        let of_key = |key| route.target(Some(key)).unwrap().filter.accepts(&five);
        assert_eq!((of_key(7), of_key(97)), (false, true));
        assert_eq!((of_key(7), of_key(97)), (false, true));
    }
}
