//! The open connections of a listener by peer: one peer cannot take them all, and a connection whose
//! client has not begun is closed for a new one.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::{AbortHandle, yield_now};

use crate::{activity::Activity, limit::Slot};

/// Yields to connections that have just been accepted, so that they read what their clients have sent
/// by now.
const YIELDS: usize = 3;

/// The open connections. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    max_each: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    peers: HashMap<IpAddr, BTreeMap<u64, Connection>>,
}

#[derive(Debug)]
struct Connection {
    activity: Arc<Activity>,
    /// `None` until its task runs.
    task: Option<AbortHandle>,
}

/// The place of an open connection, until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    peer: IpAddr,
    number: u64,
    open: Arc<Mutex<Open>>,
    /// Free only after the place is: the next connection may be this peer's.
    _slot: Slot,
}

impl Peers {
    pub(crate) fn new(max_each: NonZeroU32) -> Self {
        Self {
            max_each: max_each.get().try_into().unwrap_or(usize::MAX),
            open: Arc::default(),
        }
    }

    /// A place for a connection of `peer`, which holds the slot. `None` if the peer has all that it
    /// may have.
    pub(crate) async fn admit(
        &self,
        peer: IpAddr,
        activity: &Arc<Activity>,
        slot: Slot,
    ) -> Option<Place> {
        let peer = network(peer);
        for _ in 0..YIELDS {
            let fresh = {
                let mut open = lock(&self.open);
                let count = open.peers.get(&peer).map_or(0, BTreeMap::len);
                if count < self.max_each || open.close_late(peer) {
                    return Some(self.place(&mut open, peer, activity, slot));
                }
                open.has_fresh(peer)
            };
            if !fresh {
                return None;
            }
            yield_now().await;
        }
        None
    }

    fn place(&self, open: &mut Open, peer: IpAddr, activity: &Arc<Activity>, slot: Slot) -> Place {
        let number = open.next;
        open.next += 1;
        let connection = Connection {
            activity: Arc::clone(activity),
            task: None,
        };
        open.peers
            .entry(peer)
            .or_default()
            .insert(number, connection);
        Place {
            peer,
            number,
            open: Arc::clone(&self.open),
            _slot: slot,
        }
    }

    /// Closes a connection whose client has not begun, of the peer with the most connections. False if
    /// there is none.
    pub(crate) fn make_room(&self) -> bool {
        let mut open = lock(&self.open);
        let mut peers: Vec<_> = open
            .peers
            .iter()
            .map(|(ip, all)| (all.len(), *ip))
            .collect();
        peers.sort_unstable_by(|a, b| b.cmp(a));
        peers.into_iter().any(|(_, peer)| open.close_late(peer))
    }
}

impl Open {
    /// Closes the oldest connection of the peer whose client has not begun.
    fn close_late(&mut self, peer: IpAddr) -> bool {
        let Some(connections) = self.peers.get_mut(&peer) else {
            return false;
        };
        let late = connections.iter().find_map(|(number, connection)| {
            let task = connection.task.as_ref()?;
            connection
                .activity
                .is_late()
                .then_some((*number, task.clone()))
        });
        let Some((number, task)) = late else {
            return false;
        };
        task.abort();
        connections.remove(&number);
        true
    }

    fn has_fresh(&self, peer: IpAddr) -> bool {
        let connections = self.peers.get(&peer);
        connections.is_some_and(|all| all.values().any(|one| one.activity.is_fresh()))
    }
}

impl Place {
    /// Names the task that serves the connection.
    pub(crate) fn served_by(peers: &Peers, (peer, number): (IpAddr, u64), task: AbortHandle) {
        let mut open = lock(&peers.open);
        let connection = open
            .peers
            .get_mut(&peer)
            .and_then(|all| all.get_mut(&number));
        if let Some(connection) = connection {
            connection.task = Some(task);
        }
    }

    /// The key of the connection.
    pub(crate) fn key(&self) -> (IpAddr, u64) {
        (self.peer, self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(connections) = open.peers.get_mut(&self.peer) {
            connections.remove(&self.number);
            if connections.is_empty() {
                open.peers.remove(&self.peer);
            }
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of an address that one user has: an IPv4 address, or a network of IPv6, whose last 64 bits
/// a user chooses freely.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::Semaphore;

    use super::*;

    async fn open(peers: &Peers, peer: &str) -> Option<(Place, Arc<Activity>)> {
        let activity = Arc::<Activity>::default();
        let slots = Arc::new(Semaphore::new(1));
        let slot = slots.try_acquire_owned().unwrap();
        let place = peers.admit(peer.parse().unwrap(), &activity, slot).await?;
        let task = tokio::spawn(pending::<()>()).abort_handle();
        Place::served_by(peers, place.key(), task);
        Some((place, activity))
    }

    #[tokio::test]
    async fn a_peer_has_its_share_and_others_theirs() {
        let peers = Peers::new(NonZeroU32::new(2).unwrap());
        for [one, same, other] in [
            ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"],
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"],
        ] {
            let (first, begun) = open(&peers, one).await.unwrap();
            begun.begins();
            let (_second, begun) = open(&peers, same).await.unwrap();
            begun.begins();
            assert!(open(&peers, one).await.is_none());
            assert!(open(&peers, other).await.is_some());
            drop(first);
            assert!(open(&peers, one).await.is_some());
        }
        assert!(lock(&peers.open).peers.values().all(|all| all.len() == 1));
    }

    #[tokio::test]
    async fn the_oldest_connection_that_has_not_begun_makes_room() {
        let peers = Peers::new(NonZeroU32::new(3).unwrap());
        let (_a, begun) = open(&peers, "10.0.0.1").await.unwrap();
        begun.begins();
        let (b, late) = open(&peers, "10.0.0.1").await.unwrap();
        // It has not been read yet.
        let (_c, _fresh) = open(&peers, "10.0.0.1").await.unwrap();
        assert!(open(&peers, "10.0.0.1").await.is_none());
        assert!(!peers.make_room());
        late.waits();
        let _d = open(&peers, "10.0.0.1").await.unwrap();
        assert!(open(&peers, "10.0.0.1").await.is_none());
        drop(b);
        assert!(open(&peers, "10.0.0.1").await.is_none());

        let (_other, waits) = open(&peers, "10.0.0.2").await.unwrap();
        waits.waits();
        assert!(peers.make_room());
        assert!(!peers.make_room());
    }
}
