//! A ring of points, each owned by a member of the set. It is immutable: a change makes a new ring from
//! the old one in one pass.
//!
//! The place of a key is one of 2^19 slots. The points of a large set exceed a processor's second
//! level cache. Such a set has a table with the owner of each slot, which takes 1 MiB for any size of
//! the set and costs one access per lookup. A lookup in a small set searches the points, which gives
//! the same owners.

use std::collections::HashMap;

use crate::hash;

/// Average number of points per part of the guide.
const POINTS_PER_PART: usize = 8;
/// Number of upper bits of a hash that are a key's slot.
const SLOT_BITS: u32 = 19;
/// Maximum number of members of a set without a table of the slots' owners.
const MAX_GUIDED: usize = 1_024;

/// A member and how many points it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) points: u32,
}

impl Member {
    /// The member's points. A member with fewer points has the first of them, so that a change of
    /// weight moves as few keys as possible.
    fn places(self, owner: u32) -> impl Iterator<Item = u64> {
        (0..self.points).map(move |nth| point(hash::nth(self.id, u64::from(nth)), owner))
    }
}

/// A point: its place on the ring in the upper half, the owner's index in the lower half.
fn point(place: u64, owner: u32) -> u64 {
    (place & !u64::from(u32::MAX)) | u64::from(owner)
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Ring {
    members: Vec<Member>,
    /// Sorted.
    points: Vec<u64>,
    lookup: Lookup,
}

/// The index that finds the first point from a slot on.
#[derive(Debug)]
enum Lookup {
    Guide {
        /// The index in `points` at which each of the ring's equal parts begins.
        parts: Vec<u32>,
        /// Number of lower bits of a place that do not select the part.
        shift: u32,
    },
    /// The owner of each slot.
    Owners(Vec<u16>),
}

impl Default for Lookup {
    fn default() -> Self {
        Self::Guide {
            parts: vec![0; 2],
            shift: 63,
        }
    }
}

/// The place of a key: the start of its slot.
fn place(key: u64) -> u64 {
    hash::nth(key, 0) >> (64 - SLOT_BITS) << (64 - SLOT_BITS)
}

/// The owner's index, which is the lower half of a point.
fn owner(point: u64) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "takes the lower half")]
    let owner = point as u32 as usize;
    owner
}

impl Ring {
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The number of members of the ring that are among these.
    pub(super) fn in_common(&self, members: &[Member]) -> usize {
        let known = index(&self.members);
        members.iter().filter(|m| known.contains_key(&m.id)).count()
    }

    /// The ring of these members, made from this ring.
    pub(super) fn change(&self, members: Vec<Member>) -> Self {
        let known = index(&self.members);
        let latest = index(&members);
        let stays = |old: &Member| {
            let (at, new) = latest.get(&old.id)?;
            (new == old).then_some(*at)
        };
        let moved: Vec<Option<u32>> = self.members.iter().map(stays).collect();
        let kept = self.points.iter();
        let kept = kept.filter_map(|old| Some(point(*old, moved[owner(*old)]?)));
        let mut points: Vec<u64> = kept.collect();
        let fresh = |(_, new): &(u32, Member)| known.get(&new.id).is_none_or(|(_, old)| old != new);
        let added = (0..)
            .zip(members.iter().copied())
            .filter(fresh)
            .flat_map(|(at, member)| member.places(at));
        points.extend(added);
        #[allow(
            clippy::stable_sort_primitive,
            reason = "the kept points are one sorted run, which a stable sort uses"
        )]
        points.sort();
        Self {
            lookup: Lookup::new(&members, &points),
            members,
            points,
        }
    }

    /// The owner of the first point from the key's place on; `None` if the ring is empty.
    pub(super) fn first(&self, key: u64) -> Option<usize> {
        match &self.lookup {
            #[allow(clippy::cast_possible_truncation, reason = "2^19 slots")]
            Lookup::Owners(owners) => owners
                .get((place(key) >> (64 - SLOT_BITS)) as usize)
                .map(|owner| usize::from(*owner)),
            Lookup::Guide { .. } => self.clockwise(key).next(),
        }
    }

    /// The owners of the points from the key's place on, once around.
    pub(super) fn clockwise(&self, key: u64) -> impl Iterator<Item = usize> {
        let place = place(key);
        let first = match &self.lookup {
            Lookup::Guide { parts, shift } => {
                #[allow(clippy::cast_possible_truncation, reason = "below the guide's length")]
                let part = (place >> shift) as usize;
                let mut first = parts.get(part).map_or(0, |at| *at as usize);
                while self.points.get(first).is_some_and(|point| *point < place) {
                    first += 1;
                }
                first
            }
            // Used only if the first owner is overloaded or was tried.
            Lookup::Owners(_) => self.points.partition_point(|point| *point < place),
        };
        let (before, from) = self.points.split_at(first);
        from.iter().chain(before).map(|point| owner(*point))
    }
}

impl Lookup {
    fn new(members: &[Member], points: &[u64]) -> Self {
        if members.len() > MAX_GUIDED && u16::try_from(members.len()).is_ok() {
            return Self::owners(points);
        }
        let count = (points.len() / POINTS_PER_PART).next_power_of_two().max(2);
        let shift = 64 - count.trailing_zeros();
        let mut at = 0;
        let parts = (0..count as u64)
            .map(|part| {
                while points.get(at).is_some_and(|point| point >> shift < part) {
                    at += 1;
                }
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "far fewer points than 2^32"
                )]
                let first = at as u32;
                first
            })
            .collect();
        Self::Guide { parts, shift }
    }

    /// Needs at least one point.
    fn owners(points: &[u64]) -> Self {
        let mut at = 0;
        let owners = (0..1_u64 << SLOT_BITS).map(|slot| {
            let place = slot << (64 - SLOT_BITS);
            while points.get(at).is_some_and(|point| *point < place) {
                at += 1;
            }
            let point = points.get(at).or(points.first());
            #[allow(clippy::cast_possible_truncation, reason = "fewer members than 2^16")]
            let owner = point.map_or(0, |point| owner(*point)) as u16;
            owner
        });
        Self::Owners(owners.collect())
    }
}

fn index(members: &[Member]) -> HashMap<u64, (u32, Member)> {
    members
        .iter()
        .zip(0..)
        .map(|(member, at)| (member.id, (at, *member)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_the_first_point_from_the_key_on_and_goes_around_once() {
        let members = (0..50).map(|id| Member { id, points: 20 }).collect();
        let ring = Ring::default().change(members);
        assert!(ring.points.is_sorted());
        for key in 0..5_000 {
            let place = place(key);
            let expected = ring.points.iter().find(|p| **p >= place);
            #[allow(clippy::cast_possible_truncation)]
            let expected = *expected.unwrap_or(&ring.points[0]) as u32 as usize;
            assert_eq!(ring.clockwise(key).next(), Some(expected));
            assert_eq!(ring.first(key), Some(expected));
        }
        assert_eq!(ring.clockwise(1).count(), 1_000);
    }

    #[test]
    fn a_table_of_owners_gives_the_same_owners_as_the_points() {
        let members: Vec<_> = (0..2_000).map(|id| Member { id, points: 20 }).collect();
        let ring = Ring::default().change(members);
        assert!(matches!(ring.lookup, Lookup::Owners(_)));
        for key in 0..20_000 {
            let expected = ring.points.iter().find(|p| **p >= place(key));
            let expected = owner(*expected.unwrap_or(&ring.points[0]));
            assert_eq!(ring.first(key), Some(expected));
            assert_eq!(ring.clockwise(key).next(), Some(expected));
        }
    }

    #[test]
    fn an_empty_ring_has_no_owners() {
        let ring = Ring::default();
        assert_eq!(ring.first(1), None);
        assert_eq!(ring.clockwise(1).count(), 0);
        assert_eq!(ring.change(Vec::new()).clockwise(1).count(), 0);
    }
}
