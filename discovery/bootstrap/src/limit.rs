//! The limit of open connections of one listener.
//!
//! Without a limit, a flood of connections takes every file descriptor of the process. The service
//! then cannot open connections to its registry or to other services either.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::{debug, warn};

use crate::thinned::Thinned;

/// Wait at the limit before room is made again.
const AGAIN: Duration = Duration::from_millis(20);

/// Used if the system does not tell the process's limit of open files. It is Linux's usual default.
const OPEN_FILES: u64 = 1024;

/// Maximum of the default limit. Each connection costs memory too, and the limit of open files is a
/// million in many containers.
const MAX_DEFAULT: u32 = 16_384;

/// Raises the process's soft limit of open files to the hard one (`ulimit -Hn`). Usual soft limits are
/// low for the sake of programs that use `select`, which a tokio program does not.
///
/// Call it at the start: limits of connections are derived from the soft limit.
pub fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            debug!(from = soft, to = hard, "limit of open files raised");
        }
        Ok(())
    });
    if let Err(error) = raised {
        warn!(%error, "cannot raise the limit of open files (ulimit -n)");
    }
}

/// The default limit of each of `listeners` listeners: their equal part of three quarters of the
/// process's limit of open files (`ulimit -n`), at most [`MAX_DEFAULT`]. The last quarter remains for
/// everything else.
pub(crate) fn default_limit(listeners: usize) -> NonZeroU32 {
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(OPEN_FILES, |(soft, _hard)| soft);
    limit_of(open_files, listeners)
}

fn limit_of(open_files: u64, listeners: usize) -> NonZeroU32 {
    let for_connections = open_files - open_files / 4;
    let each = for_connections / (listeners.max(1) as u64);
    let each = u32::try_from(each).map_or(MAX_DEFAULT, |each| each.min(MAX_DEFAULT));
    NonZeroU32::new(each).unwrap_or(NonZeroU32::MIN)
}

/// The share of all connections that one peer may have, if no limit is set.
pub(crate) fn default_limit_per_peer(max_connections: NonZeroU32) -> NonZeroU32 {
    let quarter = NonZeroU32::new(max_connections.get() / 4);
    let share = quarter.map_or(max_connections.get(), |quarter| {
        max_connections.get() - quarter.get()
    });
    NonZeroU32::new(share).unwrap_or(NonZeroU32::MIN)
}

/// The slots of one listener. A connection holds one until it is closed.
pub(crate) struct ConnectionLimit {
    slots: Arc<Semaphore>,
    max: NonZeroU32,
    reached: Thinned,
}

/// The slot of one open connection.
pub(crate) type Slot = OwnedSemaphorePermit;

impl ConnectionLimit {
    pub(crate) fn new(max: NonZeroU32) -> Self {
        // Only a 32-bit system has a lower maximum than this limit.
        let permits = usize::try_from(max.get()).map_or(Semaphore::MAX_PERMITS, |max| {
            max.min(Semaphore::MAX_PERMITS)
        });
        Self {
            slots: Arc::new(Semaphore::new(permits)),
            max,
            reached: Thinned::new(),
        }
    }

    /// Logs it if no slot is free.
    pub(crate) fn warn_if_reached(&self) {
        if self.slots.available_permits() == 0
            && let Some(suppressed) = self.reached.line()
        {
            warn!(
                max_connections = self.max,
                suppressed, "connection limit reached: new connections wait until one closes"
            );
        }
    }

    /// Waits for a free slot. At the limit, `make_room` is called at intervals; it closes a connection
    /// if it can. New connections wait in the kernel's queue meanwhile.
    pub(crate) async fn slot(&self, make_room: impl Fn() -> bool) -> Slot {
        loop {
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                return slot;
            }
            make_room();
            let slot = timeout(AGAIN, Arc::clone(&self.slots).acquire_owned()).await;
            // The semaphore is never closed.
            if let Ok(Ok(slot)) = slot {
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_default_leaves_a_quarter_of_the_files_to_others() {
        for (open_files, listeners, expected) in [
            (1024, 1, 768),
            (1024, 2, 384),
            (1024, 0, 768),
            (3, 4, 1),
            (0, 1, 1),
            (20_000, 1, 15_000),
            (1 << 20, 2, MAX_DEFAULT),
            (u64::MAX, 1, MAX_DEFAULT),
        ] {
            let limit = limit_of(open_files, listeners).get();
            assert_eq!(limit, expected, "{open_files} files, {listeners} listeners");
        }
    }

    #[tokio::test]
    async fn a_slot_is_free_again_when_its_connection_closes() {
        let limit = ConnectionLimit::new(NonZeroU32::new(2).unwrap());
        let slot = || limit.slot(|| false);
        let first = slot().await;
        let _second = slot().await;
        assert!(slot().now_or_never().is_none());
        drop(first);
        assert!(slot().now_or_never().is_some());
    }

    #[test]
    fn one_peer_has_three_quarters_by_default_and_at_least_one() {
        for (max, share) in [(1, 1), (2, 2), (3, 3), (4, 3), (100, 75), (16_384, 12_288)] {
            let max = NonZeroU32::new(max).unwrap();
            assert_eq!(default_limit_per_peer(max).get(), share, "{max}");
        }
    }
}
