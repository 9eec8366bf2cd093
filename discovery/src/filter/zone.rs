//! Zone preference: calls stay near as long as those near can carry them.
//!
//! Candidates are ranked by how near they are: the client's zone, its datacenter, anywhere. The
//! nearest rank that has candidates gets the calls. If what it has left is too little, a part of the
//! calls goes to the next rank:
//!
//! ```text
//! fair       = weight of all candidates of both ranks / zones (or datacenters) they lie in
//! near share = min(1, overprovisioning_factor * weight of those near / fair)
//! ```
//!
//! A zone that holds its fair share, or up to a `overprovisioning_factor`th of it, keeps all of its clients' calls;
//! one that has lost most of its instances keeps as many as those left can carry, so that they are
//! not buried. This is Envoy's zone aware routing with the overprovisioning factor (1.4) of its
//! priority levels, and with the assumption that each zone has about as many clients, for a client
//! does not know how many others there are. A key always makes the same choice.

use std::{collections::HashSet, sync::Arc};

use crate::endpoint::Endpoint;

/// Where a client is, and how much it wants to stay there.
///
/// ```
/// let here = discovery::Locality::zone("eu-1a").within("eu-1");
/// assert_eq!(here.datacenter.as_deref(), Some("eu-1"));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Locality {
    /// The failure domain inside a datacenter, as instances name it (Consul: the key `zone` in the
    /// metadata of the service or its node). Default: none, the datacenter alone counts.
    pub zone: Option<String>,
    /// The datacenter, as instances name it. With a zone, it comes second; and a zone of the same
    /// name in another datacenter is another zone. Default: none, the zone alone counts.
    pub datacenter: Option<String>,
    /// How much more than their fair share those near are trusted to carry; at least 1. Default:
    /// 1.4 (Envoy's overprovisioning factor).
    pub overprovisioning_factor: f64,
}

impl Locality {
    /// A client in this zone.
    #[must_use]
    pub fn zone(zone: impl Into<String>) -> Self {
        Self {
            zone: Some(zone.into()),
            datacenter: None,
            overprovisioning_factor: 1.4,
        }
    }

    /// A client in this datacenter, of whatever zone.
    #[must_use]
    pub fn datacenter(datacenter: impl Into<String>) -> Self {
        Self {
            zone: None,
            datacenter: Some(datacenter.into()),
            overprovisioning_factor: 1.4,
        }
    }

    /// The datacenter that the zone lies in.
    #[must_use]
    pub fn within(mut self, datacenter: impl Into<String>) -> Self {
        self.datacenter = Some(datacenter.into());
        self
    }

    /// Puts those near first, and says how many there are and what they are to get.
    pub(crate) fn split(&self, candidates: &mut [Arc<Endpoint>]) -> Split {
        // Stable: within a rank the order stays.
        candidates.sort_by_key(|endpoint| self.rank(endpoint));
        let Some(nearest) = candidates.first().map(|endpoint| self.rank(endpoint)) else {
            return Split::all(0);
        };
        let near = candidates.partition_point(|e| self.rank(e) == nearest);
        let next = candidates.get(near).map(|endpoint| self.rank(endpoint));
        let end = candidates.partition_point(|e| Some(self.rank(e)) <= next.max(Some(nearest)));
        let weight = |part: &[Arc<Endpoint>]| -> f64 {
            let weight = |e: &Arc<Endpoint>| f64::from(e.instance().weight.max(1));
            part.iter().map(weight).sum()
        };
        let domains: HashSet<_> = candidates[..end]
            .iter()
            .map(|endpoint| {
                let instance = endpoint.instance();
                let zone = instance.zone.as_ref().filter(|_| nearest == Rank::Zone);
                let datacenter = self.datacenter.as_ref().and(instance.datacenter.as_ref());
                (zone, datacenter)
            })
            .collect();
        // Far from where an `f64` loses whole numbers.
        #[allow(clippy::cast_precision_loss)]
        let fair = weight(&candidates[..end]) / domains.len() as f64;
        let share = if near == end {
            1.0
        } else {
            (self.overprovisioning_factor * weight(&candidates[..near]) / fair).min(1.0)
        };
        Split { near, end, share }
    }

    fn rank(&self, endpoint: &Endpoint) -> Rank {
        let instance = endpoint.instance();
        let same = |ours: &Option<String>, theirs| ours.is_none() || ours == theirs;
        if !same(&self.datacenter, &instance.datacenter) {
            Rank::Elsewhere
        } else if self.zone.is_some() && same(&self.zone, &instance.zone) {
            Rank::Zone
        } else if self.datacenter.is_some() {
            Rank::Datacenter
        } else {
            Rank::Elsewhere
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Zone,
    Datacenter,
    Elsewhere,
}

/// How candidates are split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Split {
    /// The first so many are near.
    pub(crate) near: usize,
    /// From there to here are the next nearest; what comes after is for want of anything else.
    pub(crate) end: usize,
    /// The share of calls that those near get.
    pub(crate) share: f64,
}

impl Split {
    /// All of them are as near as any.
    pub(crate) fn all(count: usize) -> Self {
        Self {
            near: count,
            end: count,
            share: 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Instance;

    /// Endpoints in these zones, written `datacenter/zone` with a weight behind a colon.
    fn candidates(places: &[&str]) -> Vec<Arc<Endpoint>> {
        (1..)
            .zip(places)
            .map(|(port, place)| {
                let (place, weight) = place.split_once(':').unwrap_or((place, "1"));
                let (datacenter, zone) = place.split_once('/').unwrap();
                let mut instance = Instance::new("127.0.0.1", port).unwrap();
                instance.datacenter = Some(datacenter.to_owned()).filter(|d| !d.is_empty());
                instance.zone = Some(zone.to_owned()).filter(|z| !z.is_empty());
                instance.weight = weight.parse().unwrap();
                Arc::new(Endpoint::new(instance))
            })
            .collect()
    }

    fn split(locality: &Locality, places: &[&str]) -> (Vec<u16>, Split) {
        let mut set = candidates(places);
        let split = locality.split(&mut set);
        (set.iter().map(|e| e.instance().port).collect(), split)
    }

    fn check(locality: &Locality, places: &[&str], near: usize, end: usize, share: f64) {
        let (_, split) = split(locality, places);
        assert_eq!((split.near, split.end), (near, end), "{places:?}");
        assert!((split.share - share).abs() < 1e-9, "{split:?} {places:?}");
    }

    #[test]
    fn those_near_come_first_in_their_order() {
        let here = Locality::zone("a").within("x");
        let (ports, split) = split(&here, &["y/a", "x/b", "x/a", "/", "x/a", "x/"]);
        assert_eq!(ports, [3, 5, 2, 6, 1, 4]);
        assert_eq!((split.near, split.end), (2, 4));
    }

    #[test]
    fn all_calls_stay_while_those_near_hold_their_fair_share() {
        let here = Locality::zone("a");
        check(&here, &["/a", "/b", "/c"], 1, 3, 1.0);
        check(&here, &["/a", "/a", "/b", "/b", "/b"], 2, 5, 1.0);
        // 5 of 7 is the least that a overprovisioning_factor of 1.4 takes for a whole.
        check(&here, &["/a:5", "/b:9"], 1, 2, 1.0);
    }

    #[test]
    fn what_those_near_cannot_carry_goes_on() {
        let here = Locality::zone("a");
        check(&here, &["/a", "/b:9"], 1, 2, 0.28);
        check(&here, &["/a", "/b", "/b", "/c", "/c", "/c"], 1, 6, 0.7);
        let wide = Locality {
            overprovisioning_factor: 1_000.0,
            ..Locality::zone("a")
        };
        check(&wide, &["/a", "/b:9"], 1, 2, 1.0);
    }

    #[test]
    fn with_none_near_all_calls_go_elsewhere() {
        check(&Locality::zone("a"), &["/b", "/c", "/"], 3, 3, 1.0);
        check(&Locality::zone("a"), &["/a", "/a"], 2, 2, 1.0);
        check(&Locality::zone("a"), &[], 0, 0, 1.0);
    }

    #[test]
    fn the_datacenter_comes_second() {
        let here = Locality::zone("a").within("x");
        check(&here, &["x/b", "x/c", "y/a"], 2, 3, 1.0);
        check(&here, &["x/a", "y/a", "y/b"], 1, 3, 1.0);
        check(&here, &["x/b", "y/a:9"], 1, 2, 0.28);
        let anywhere_in_x = Locality::datacenter("x");
        check(&anywhere_in_x, &["x/a", "x/b", "y/a"], 2, 3, 1.0);
        check(&anywhere_in_x, &["/a", "y/a"], 2, 2, 1.0);
    }

    #[test]
    fn zones_of_one_name_in_two_datacenters_are_one_where_no_datacenter_is_given() {
        check(&Locality::zone("a"), &["x/a", "y/a", "x/b"], 2, 3, 1.0);
    }
}
