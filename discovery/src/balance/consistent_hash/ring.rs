//! A ring of points, each owned by a member of the set. Immutable: a change makes a new ring out of
//! the old one in one pass.

use std::collections::HashMap;

use crate::hash;

/// Points per entry of the guide.
const STEP: usize = 8;

/// A member and how many points it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) points: u32,
}

impl Member {
    /// Its points. Fewer points are the first of more, so that a change of weight moves only what
    /// it has to.
    fn places(self, owner: u32) -> impl Iterator<Item = u64> {
        (0..self.points).map(move |nth| point(hash::nth(self.id, u64::from(nth)), owner))
    }
}

/// The place on the ring in the upper half, the owner's index in the lower one.
fn point(place: u64, owner: u32) -> u64 {
    (place & !u64::from(u32::MAX)) | u64::from(owner)
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Ring {
    members: Vec<Member>,
    /// Sorted.
    points: Vec<u64>,
    /// Where in `points` the ring's equal parts begin.
    guide: Vec<u32>,
    /// From a place to its part of the guide.
    shift: u32,
}

impl Ring {
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many members of the ring are among these.
    pub(super) fn in_common(&self, members: &[Member]) -> usize {
        let known = index(&self.members);
        members.iter().filter(|m| known.contains_key(&m.id)).count()
    }

    /// The ring of other members.
    pub(super) fn change(&self, members: Vec<Member>) -> Self {
        let known = index(&self.members);
        let latest = index(&members);
        let stays = |old: &Member| {
            let (at, new) = latest.get(&old.id)?;
            (new == old).then_some(*at)
        };
        let moved: Vec<Option<u32>> = self.members.iter().map(stays).collect();
        let kept = self.points.iter().filter_map(|old| {
            #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
            let owner = *old as u32 as usize;
            Some(point(*old, moved[owner]?))
        });
        let mut points: Vec<u64> = kept.collect();
        let fresh = |(_, new): &(u32, Member)| known.get(&new.id).is_none_or(|(_, old)| old != new);
        let added = (0..)
            .zip(members.iter().copied())
            .filter(fresh)
            .flat_map(|(at, member)| member.places(at));
        points.extend(added);
        // What was kept is one sorted run, which the stable sort takes as it is.
        #[allow(clippy::stable_sort_primitive)]
        points.sort();
        Self {
            shift: 0,
            guide: Vec::new(),
            members,
            points,
        }
        .guided()
    }

    fn guided(mut self) -> Self {
        let parts = (self.points.len() / STEP).next_power_of_two().max(2);
        self.shift = 64 - parts.trailing_zeros();
        let mut at = 0;
        for part in 0..parts as u64 {
            while self.points.get(at).is_some_and(|p| p >> self.shift < part) {
                at += 1;
            }
            // Rings have far fewer points than 2^32.
            #[allow(clippy::cast_possible_truncation)]
            self.guide.push(at as u32);
        }
        self
    }

    /// The owners of the points from the key's place on, once around.
    pub(super) fn clockwise(&self, key: u64) -> impl Iterator<Item = usize> {
        let place = point(hash::nth(key, 0), 0);
        #[allow(clippy::cast_possible_truncation, reason = "below the guide's length")]
        let part = (place >> self.shift) as usize;
        let mut first = self.guide.get(part).map_or(0, |at| *at as usize);
        while self.points.get(first).is_some_and(|p| *p < place) {
            first += 1;
        }
        let (before, from) = self.points.split_at(first);
        #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        from.iter().chain(before).map(|p| *p as u32 as usize)
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
    fn begins_at_the_first_point_from_the_key_on_and_goes_once_around() {
        let members = (0..50).map(|id| Member { id, points: 20 }).collect();
        let ring = Ring::default().change(members);
        assert!(ring.points.is_sorted());
        for key in 0..5_000 {
            let place = point(hash::nth(key, 0), 0);
            let expected = ring.points.iter().find(|p| **p >= place);
            #[allow(clippy::cast_possible_truncation)]
            let expected = *expected.unwrap_or(&ring.points[0]) as u32 as usize;
            assert_eq!(ring.clockwise(key).next(), Some(expected));
        }
        assert_eq!(ring.clockwise(1).count(), 1_000);
    }

    #[test]
    fn an_empty_ring_has_no_owners() {
        let ring = Ring::default();
        assert_eq!(ring.clockwise(1).count(), 0);
        assert_eq!(ring.change(Vec::new()).clockwise(1).count(), 0);
    }
}
