//! What the subchannels of a channel share: their settings, and the limits on attempts to connect.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use crate::{
    backoff::Backoff,
    connection::{ConnectError, Connection, Factory},
    instance::Instance,
};

/// Interval between the rare attempts of one line. At 100 a second they cost about a hundredth of a core,
/// and every one of 5 000 unreachable instances has its turn each minute.
const RARE_INTERVAL: Duration = Duration::from_millis(10);

/// The rare attempts over a whole set follow one another in two lines, so that an instance that restarts
/// does not wait for those that may not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Instances that had a connection.
    Known,
    /// Instances that never had one.
    Unknown,
}

/// The time of the next attempt in each line.
#[derive(Debug, Default)]
struct Turns {
    known: Option<Instant>,
    unknown: Option<Instant>,
}

/// The settings and limits shared by all subchannels of a channel.
pub(crate) struct Connector {
    factory: Arc<dyn Factory>,
    /// Limits the attempts to connect that run at the same time.
    parallel: Semaphore,
    /// Limits those to unreachable instances, so that a lost connection is made again without waiting
    /// for all of them.
    retries: Semaphore,
    /// Time limit of one attempt.
    timeout: Duration,
    /// Delay after failed attempts.
    pub(super) backoff: Backoff,
    /// True if connections are made before a call needs them.
    pub(crate) eager: bool,
    /// Notified after every visible change of state.
    pub(crate) changed: Arc<Notify>,
    /// Number of subchannels whose last attempt succeeded, as far as their drivers run.
    reachable: AtomicUsize,
    /// Notified when `reachable` has become zero.
    all_down: Notify,
    turns: Mutex<Turns>,
}

impl Connector {
    pub(crate) fn new(
        factory: Arc<dyn Factory>,
        parallel: usize,
        timeout: Duration,
        backoff: Backoff,
        eager: bool,
    ) -> Self {
        Self {
            factory,
            parallel: Semaphore::new(parallel),
            retries: Semaphore::new((parallel / 2).max(1)),
            timeout,
            backoff,
            eager,
            changed: Arc::default(),
            reachable: AtomicUsize::new(0),
            all_down: Notify::new(),
            turns: Mutex::default(),
        }
    }

    /// One attempt. `again` is true if the last one failed.
    pub(super) async fn connect(
        &self,
        instance: &Instance,
        again: bool,
    ) -> Result<Connection, ConnectError> {
        // The semaphores are never closed, so acquiring them cannot fail.
        let _retry: Option<SemaphorePermit<'_>> = if again && self.has_reachable() {
            self.retries.acquire().await.ok()
        } else {
            None
        };
        let _permit = self.parallel.acquire().await;
        timeout(self.timeout, self.factory.connect(instance))
            .await
            .unwrap_or(Err(ConnectError::Timeout(self.timeout)))
    }

    /// True if an instance of the set can be connected to.
    pub(super) fn has_reachable(&self) -> bool {
        self.reachable.load(Ordering::Acquire) > 0
    }

    /// Completes when no instance can be connected to any longer, from the time of this call on.
    pub(super) fn all_down(&self) -> impl Future<Output = ()> + '_ {
        // Registered here, not at the first poll.
        self.all_down.notified()
    }

    /// Takes the next turn in this line.
    pub(super) fn take_turn(&self, line: Line) -> Instant {
        let now = Instant::now();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match line {
            Line::Known => &mut turns.known,
            Line::Unknown => &mut turns.unknown,
        };
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + RARE_INTERVAL);
        turn
    }
}

/// Counts a subchannel as reachable until dropped.
pub(super) struct Reachable(Arc<Connector>);

impl Reachable {
    pub(super) fn new(connector: &Arc<Connector>) -> Self {
        connector.reachable.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connector))
    }
}

impl Drop for Reachable {
    fn drop(&mut self) {
        let connector = &self.0;
        if connector.reachable.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Attempts are no longer rare, so those that wait leave their line.
            *connector
                .turns
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Turns::default();
            connector.all_down.notify_waiters();
        }
    }
}
