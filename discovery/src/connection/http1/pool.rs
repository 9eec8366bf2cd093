//! The connections of one transport.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep_until, timeout},
};

use super::{Bounds, Dial, link::Link};
use crate::{
    BoxError,
    connection::{ConnectError, SendError},
};

/// Time for making a connection while the transport is in use.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum interval between looks at idle connections when there are none.
const FAR: Duration = Duration::from_secs(3_600);

/// See the [module](self).
pub(crate) struct Pool {
    dial: Dial,
    bounds: Bounds,
    /// A permit for each request under way. There are never more connections than permits: one is made
    /// only by a request that finds none idle.
    permits: Arc<Semaphore>,
    /// The one used last is at the end.
    idle: Mutex<Vec<Link>>,
    /// Connections that have not ended.
    open: AtomicUsize,
    /// True if the last one ended without a reason.
    lost: AtomicBool,
    /// The reason why no more connections can be made.
    failure: Mutex<Option<BoxError>>,
    closed: AtomicBool,
    answered: AtomicBool,
    /// Wakes the driver.
    changed: Notify,
}

impl Pool {
    pub(super) fn new(dial: Dial, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            dial,
            bounds,
            permits: Arc::new(Semaphore::new(
                bounds.connections.get().min(Semaphore::MAX_PERMITS),
            )),
            idle: Mutex::default(),
            open: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            failure: Mutex::default(),
            closed: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn note_answer(&self) {
        if !self.has_answered() {
            self.answered.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for the turn of a request.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, SendError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.map_err(SendError::unprocessed)
    }

    /// Offers a connection to requests.
    pub(super) fn add(self: &Arc<Self>, mut link: Link) {
        self.watch(&mut link);
        self.put(link);
    }

    /// Counts a connection until it ends.
    fn watch(self: &Arc<Self>, link: &mut Link) {
        let Some((ended, expected)) = link.end() else {
            return;
        };
        self.open.fetch_add(1, Ordering::Relaxed);
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            let _sent_or_dropped = ended.await;
            if let Some(pool) = Weak::upgrade(&pool) {
                let last = pool.open.fetch_sub(1, Ordering::Relaxed) == 1;
                if last && !expected.load(Ordering::Relaxed) {
                    pool.lost.store(true, Ordering::Relaxed);
                    pool.changed.notify_one();
                }
            }
        });
    }

    /// Takes back a connection that can take another request.
    pub(super) fn put(&self, mut link: Link) {
        if self.is_closed() {
            return;
        }
        link.since = Instant::now();
        let mut idle = lock(&self.idle);
        idle.push(link);
        if idle.len() == 1 {
            drop(idle);
            // The driver has to look at it later.
            self.changed.notify_one();
        }
    }

    /// An idle connection that is open.
    pub(super) fn take(&self) -> Option<Link> {
        let mut idle = lock(&self.idle);
        while let Some(mut link) = idle.pop() {
            if link.is_ready() == Some(true) && link.since.elapsed() < self.bounds.idle {
                return Some(link);
            }
            link.expect_end();
        }
        None
    }

    /// Another connection.
    ///
    /// # Errors
    ///
    /// If it cannot be made. The transport ends then, unless this side lacks a file descriptor.
    pub(super) async fn make(self: &Arc<Self>) -> Result<Link, SendError> {
        let made = timeout(DIAL_TIMEOUT, (self.dial)()).await;
        match made.unwrap_or(Err(ConnectError::Timeout(DIAL_TIMEOUT))) {
            Ok(mut link) => {
                self.watch(&mut link);
                Ok(link)
            }
            Err(error) if error.is_shortage() => Err(SendError::unprocessed(error)),
            Err(error) => {
                let text = crate::error::chain(&error);
                self.fail(error.into());
                Err(SendError::unprocessed(text))
            }
        }
    }

    /// Ends the transport: no connection can be made.
    fn fail(&self, error: BoxError) {
        self.closed.store(true, Ordering::Relaxed);
        lock(&self.failure).get_or_insert(error);
        self.changed.notify_one();
    }

    /// Closes the connections that no request uses.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        lock(&self.idle).clear();
    }

    /// Closes the connections that were idle for too long. Returns the time of the next look.
    fn evict(&self) -> Instant {
        let now = Instant::now();
        let mut idle = lock(&self.idle);
        // The ones unused for the longest time come first.
        while let Some(first) = idle.first()
            && now >= first.since + self.bounds.idle
        {
            first.expect_end();
            idle.remove(0);
        }
        idle.first()
            .map_or(now + FAR, |first| first.since + self.bounds.idle)
    }

    /// Ends when no more connections can be made, or when the transport is dropped.
    pub(super) async fn drive(
        self: Arc<Self>,
        mut dropped: oneshot::Receiver<Infallible>,
    ) -> Result<(), BoxError> {
        let pool = CloseOnDrop(self);
        loop {
            let failure = lock(&pool.0.failure).take();
            if let Some(error) = failure {
                return Err(error);
            }
            if pool.0.lost.swap(false, Ordering::Relaxed)
                && pool.0.open.load(Ordering::Relaxed) == 0
            {
                tokio::select! {
                    _ = &mut dropped => return Ok(()),
                    made = pool.0.make() => match made {
                        Ok(link) => pool.0.put(link),
                        // Without a failure it is for lack of a file descriptor; a request will see it.
                        Err(_) => continue,
                    }
                }
            }
            let next = pool.0.evict();
            tokio::select! {
                _ = &mut dropped => return Ok(()),
                () = pool.0.changed.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }
}

/// A runtime that ends drops the driver without polling it again.
struct CloseOnDrop(Arc<Pool>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
