//! The addresses of names: those that a server sent along, those that are asked for, and the last known
//! ones where a server fails to say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    client::{Conversation, Failure},
    lookup::{Found, Refusal, least, look_up},
    message::{Data, Kind, Question, Record},
    name::Name,
};

const FAMILIES: [Kind; 2] = [Kind::A, Kind::Aaaa];

/// The addresses of one name, with the time in seconds for which they are valid.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Sorted.
    pub(super) ips: Vec<IpAddr>,
    /// The reasons for which records cannot be used.
    pub(super) malformed: Vec<&'static str>,
    pub(super) ttl: Option<u32>,
}

impl Addresses {
    fn of(found: Found) -> Self {
        Self {
            ips: found.data.iter().filter_map(Data::address).collect(),
            malformed: found.malformed,
            ttl: found.ttl,
        }
    }

    fn add(&mut self, other: Self) {
        self.ips.extend(other.ips);
        self.malformed.extend(other.malformed);
        self.ttl = least(self.ttl, other.ttl);
    }
}

/// The last good addresses of each name.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<Name, Vec<IpAddr>>);

impl Known {
    /// The addresses of these names, or the reason for which a server does not say.
    pub(super) async fn find(
        &mut self,
        conversation: &mut Conversation,
        names: BTreeSet<Name>,
        additional: &[Record],
    ) -> Result<BTreeMap<Name, Result<Addresses, Refusal>>, Failure> {
        let mut found = BTreeMap::new();
        for record in additional {
            if let Some(address) = record.data.address()
                && names.contains(&record.name)
            {
                let of_name: &mut Addresses = found.entry(record.name.clone()).or_default();
                of_name.ips.push(address);
                of_name.ttl = least(of_name.ttl, Some(record.ttl));
            }
        }
        let missing: Vec<_> = names
            .into_iter()
            .filter(|n| !found.contains_key(n))
            .collect();
        let questions = missing.iter().flat_map(|name| {
            FAMILIES.map(|kind| Question {
                name: name.clone(),
                kind,
            })
        });
        let mut answers = look_up(conversation, questions.collect())
            .await?
            .into_iter();
        let mut found: BTreeMap<_, _> = found.into_iter().map(|(n, a)| (n, Ok(a))).collect();
        for name in missing {
            let (Some(v4), Some(v6)) = (answers.next(), answers.next()) else {
                break;
            };
            let addresses = self.join(&name, v4, v6);
            found.insert(name, addresses);
        }
        for (name, addresses) in &mut found {
            if let Ok(found) = addresses {
                found.ips.sort_unstable();
                found.ips.dedup();
                self.0.insert(name.clone(), found.ips.clone());
            }
        }
        Ok(found)
    }

    /// The last good addresses of a name.
    pub(super) fn last(&self, name: &Name) -> Option<Vec<IpAddr>> {
        self.0.get(name).cloned()
    }

    /// Forgets the names that are no longer used.
    pub(super) fn retain(&mut self, used: impl Fn(&Name) -> bool) {
        self.0.retain(|name, _| used(name));
    }

    /// The addresses of both families. One that fails has its last known addresses beside the other's.
    fn join(
        &self,
        name: &Name,
        v4: Result<Found, Refusal>,
        v6: Result<Found, Refusal>,
    ) -> Result<Addresses, Refusal> {
        let known = |v6: bool| {
            let known = self.0.get(name).into_iter().flatten();
            known
                .copied()
                .filter(move |address| address.is_ipv6() == v6)
        };
        let (found, more, refusal) = match (v4, v6) {
            (Ok(v4), Ok(v6)) => {
                let mut all = Addresses::of(v4);
                all.add(Addresses::of(v6));
                return Ok(all);
            }
            (Ok(v4), Err(refusal)) => (v4, known(true).collect::<Vec<_>>(), refusal),
            (Err(refusal), Ok(v6)) => (v6, known(false).collect(), refusal),
            (Err(refusal), Err(_)) => return Err(refusal),
        };
        let mut all = Addresses::of(found);
        all.ips.extend(more);
        if all.ips.is_empty() {
            return Err(refusal);
        }
        Ok(all)
    }
}
