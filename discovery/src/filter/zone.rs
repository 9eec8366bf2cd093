//! Zone preference: calls stay in the client's zone as long as it has the capacity for them.

use std::{collections::HashSet, sync::Arc};

use crate::{endpoint::Endpoint, error::InvalidSetting};

/// The location of a client, whose calls prefer instances near it.
///
/// Instances have three ranks: the client's zone, its datacenter, and elsewhere. The nearest rank with
/// usable instances receives the calls. If its capacity is too low, a part of the calls goes to the
/// next rank:
///
/// ```text
/// fair       = weight of all instances of both ranks / number of their zones (or datacenters)
/// near share = min(1, overprovisioning_factor * weight of the near instances / fair)
/// ```
///
/// A zone with at least its fair share of the weight, divided by the overprovisioning factor, keeps all
/// calls of its clients. A zone with less keeps the calls that its instances have the capacity for, so
/// that they are not overloaded. This is Envoy's zone aware routing with the overprovisioning factor
/// (1.4) of its priority levels. It assumes that all zones have about the same number of clients,
/// because a client does not know the number of others. Calls with the same key make the same choice.
///
/// ```
/// use discovery::Locality;
///
/// let locality = Locality::zone("eu-1a").within("eu-1").with_overprovisioning_factor(2.0);
/// assert_eq!(locality.datacenter.as_deref(), Some("eu-1"));
/// assert!(locality.validate().is_ok());
/// assert!(Locality::zone("").validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Locality {
    /// The failure domain inside a datacenter, as instances name it (Consul: the key `zone` in the
    /// metadata of the service or its node). If `None`, only the datacenter counts.
    pub zone: Option<String>,
    /// The datacenter, as instances name it. If a zone is set, the datacenter comes second, and a zone
    /// of the same name in another datacenter is a different zone. If `None`, only the zone counts.
    pub datacenter: Option<String>,
    /// Load that the near instances may have, as a multiple of their fair share; at least 1.
    /// Default: 1.4 (Envoy's overprovisioning factor).
    pub overprovisioning_factor: f64,
    /// The other datacenters in order of preference. Instances of a datacenter that is not in the list
    /// come last. Default: none; a channel to several datacenters adds them in the order of the
    /// [query](crate::registry::Query::datacenter).
    pub fallback_datacenters: Vec<String>,
}

impl Locality {
    /// Envoy's default.
    const OVERPROVISIONING_FACTOR: f64 = 1.4;

    /// A client in this zone.
    #[must_use]
    pub fn zone(zone: impl Into<String>) -> Self {
        Self {
            zone: Some(zone.into()),
            datacenter: None,
            overprovisioning_factor: Self::OVERPROVISIONING_FACTOR,
            fallback_datacenters: Vec::new(),
        }
    }

    /// A client in this datacenter, without preference of a zone.
    #[must_use]
    pub fn datacenter(datacenter: impl Into<String>) -> Self {
        Self {
            zone: None,
            datacenter: Some(datacenter.into()),
            overprovisioning_factor: Self::OVERPROVISIONING_FACTOR,
            fallback_datacenters: Vec::new(),
        }
    }

    /// Sets the field `datacenter`: the datacenter that the zone is in.
    #[must_use]
    pub fn within(mut self, datacenter: impl Into<String>) -> Self {
        self.datacenter = Some(datacenter.into());
        self
    }

    /// Sets [`overprovisioning_factor`](Self::overprovisioning_factor).
    #[must_use]
    pub fn with_overprovisioning_factor(mut self, factor: f64) -> Self {
        self.overprovisioning_factor = factor;
        self
    }

    /// Sets [`fallback_datacenters`](Self::fallback_datacenters).
    #[must_use]
    pub fn with_fallback_datacenters(
        mut self,
        datacenters: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.fallback_datacenters = datacenters.into_iter().map(Into::into).collect();
        self
    }

    /// The preference of a client of several datacenters, the most preferred first.
    ///
    /// Without a preference of its own, the client calls the first datacenter that has working
    /// instances, whatever their capacity.
    pub(crate) fn in_order(own: Option<Self>, datacenters: &[String]) -> Option<Self> {
        let [first, _, ..] = datacenters else {
            return own;
        };
        let mut locality = own.unwrap_or_else(|| Self {
            overprovisioning_factor: f64::INFINITY,
            ..Self::datacenter(first)
        });
        let home = locality.datacenter.get_or_insert_with(|| first.clone());
        if locality.fallback_datacenters.is_empty() {
            let others = datacenters.iter().filter(|name| *name != home);
            locality.fallback_datacenters = others.cloned().collect();
        }
        Some(locality)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        for (setting, name) in [("zone", &self.zone), ("datacenter", &self.datacenter)] {
            if let Some(name) = name.as_ref().filter(|name| name.trim().is_empty()) {
                let expected = "expected a name, or no setting";
                return Err(InvalidSetting::new(setting, format!("{name:?}"), expected));
            }
        }
        let factor = self.overprovisioning_factor;
        if !factor.is_finite() || factor < 1.0 {
            return Err(InvalidSetting::new(
                "overprovisioning_factor",
                factor.to_string(),
                "must be at least 1 and finite",
            ));
        }
        Ok(())
    }

    /// Sorts candidates by rank, nearest first, and returns the split of the calls among them.
    pub(crate) fn split(&self, candidates: &mut [Arc<Endpoint>]) -> Split {
        // A stable sort: the order within a rank does not change.
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
        #[allow(
            clippy::cast_precision_loss,
            reason = "a set has fewer than 2^52 zones"
        )]
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
            let mut others = self.fallback_datacenters.iter();
            let place = others.position(|name| Some(name) == instance.datacenter.as_ref());
            place.map_or(Rank::Elsewhere, Rank::Fallback)
        } else if self.zone.is_some() && same(&self.zone, &instance.zone) {
            Rank::Zone
        } else if self.datacenter.is_some() {
            Rank::Datacenter
        } else {
            Rank::Elsewhere
        }
    }
}

/// The nearness of an instance, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Zone,
    Datacenter,
    /// The place in the list of fallbacks.
    Fallback(usize),
    Elsewhere,
}

/// The split of candidates that are sorted by rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Split {
    /// The candidates before this index are of the nearest rank.
    pub(crate) near: usize,
    /// The candidates from `near` to this index are of the next rank. The others are used only if no
    /// other candidate works.
    pub(crate) end: usize,
    /// The share of calls that the nearest rank receives.
    pub(crate) share: f64,
}

impl Split {
    /// The split of candidates without ranks.
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

    /// Endpoints in these zones, written `datacenter/zone` or `datacenter/zone:weight`.
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
    fn near_candidates_come_first_in_their_order() {
        let here = Locality::zone("a").within("x");
        let (ports, split) = split(&here, &["y/a", "x/b", "x/a", "/", "x/a", "x/"]);
        assert_eq!(ports, [3, 5, 2, 6, 1, 4]);
        assert_eq!((split.near, split.end), (2, 4));
    }

    #[test]
    fn all_calls_stay_if_the_near_candidates_have_their_fair_share() {
        let here = Locality::zone("a");
        check(&here, &["/a", "/b", "/c"], 1, 3, 1.0);
        check(&here, &["/a", "/a", "/b", "/b", "/b"], 2, 5, 1.0);
        // 5 of 7 is the smallest part of a fair share that an overprovisioning factor of 1.4 accepts.
        check(&here, &["/a:5", "/b:9"], 1, 2, 1.0);
    }

    #[test]
    fn calls_beyond_the_capacity_of_the_near_candidates_go_to_the_next_rank() {
        let here = Locality::zone("a");
        check(&here, &["/a", "/b:9"], 1, 2, 0.28);
        check(&here, &["/a", "/b", "/b", "/c", "/c", "/c"], 1, 6, 0.7);
        let wide = Locality::zone("a").with_overprovisioning_factor(1_000.0);
        check(&wide, &["/a", "/b:9"], 1, 2, 1.0);
    }

    #[test]
    fn without_near_candidates_all_calls_go_elsewhere() {
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
    fn further_datacenters_come_in_their_order() {
        let order = ["x", "y", "z"].map(str::to_owned);
        let strict = Locality::in_order(None, &order).unwrap();
        let (ports, _) = split(&strict, &["w/", "z/", "y/", "x/", "y/"]);
        assert_eq!(ports, [4, 3, 5, 2, 1]);
        // Without a preference of its own, capacity does not matter.
        check(&strict, &["x/", "y/:9", "z/:9"], 1, 2, 1.0);
        check(&strict, &["y/", "y/", "z/"], 2, 3, 1.0);
        let near_y = Locality::in_order(Some(Locality::datacenter("y")), &order).unwrap();
        check(&near_y, &["x/:9", "y/", "z/"], 1, 2, 0.28);
        assert_eq!(near_y.fallback_datacenters, ["x", "z"]);
        let zone = Locality::in_order(Some(Locality::zone("a")), &order).unwrap();
        check(&zone, &["x/a", "x/b", "y/a"], 1, 2, 1.0);
        assert_eq!(Locality::in_order(None, &order[..1]), None);
    }

    #[test]
    fn without_a_datacenter_zones_of_the_same_name_are_one_zone() {
        check(&Locality::zone("a"), &["x/a", "y/a", "x/b"], 2, 3, 1.0);
    }

    #[test]
    fn names_the_setting_that_cannot_work() {
        let factor = |factor| Locality::zone("a").with_overprovisioning_factor(factor);
        for (locality, message) in [
            (Locality::zone(""), "zone is \"\""),
            (Locality::datacenter(" "), "datacenter is \" \""),
            (Locality::zone("a").within(""), "datacenter is \"\""),
            (
                factor(0.9),
                "overprovisioning_factor is 0.9: must be at least 1",
            ),
            (factor(f64::NAN), "overprovisioning_factor is NaN"),
            (factor(f64::INFINITY), "overprovisioning_factor is inf"),
        ] {
            let error = locality.validate().unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        assert_eq!(factor(1.0).validate(), Ok(()));
    }
}
