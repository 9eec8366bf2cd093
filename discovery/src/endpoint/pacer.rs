//! Lets attempts to connect begin, in the order and at the pace of the [`Schedule`].

use std::{
    future::{Future, pending},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::schedule::{End, Key, Next, Reason, Schedule};

/// See the [module](self).
pub(super) struct Pacer {
    state: Mutex<State>,
    /// Notified when no instance is reachable any longer.
    all_down: Notify,
}

struct State {
    schedule: Schedule<oneshot::Sender<Permit>>,
    /// True while a task waits for the time of the next attempt.
    timer: bool,
}

impl Pacer {
    /// `places` is the maximum number of attempts under way.
    pub(super) fn new(places: usize) -> Self {
        Self {
            state: Mutex::new(State {
                schedule: Schedule::new(places, Instant::now()),
                timer: false,
            }),
            all_down: Notify::new(),
        }
    }

    /// Waits until an attempt may begin. `failures` is the number of those before it. Cancel safe.
    pub(super) async fn permit(self: &Arc<Self>, reason: Reason, failures: u32) -> Permit {
        let (sender, permit) = oneshot::channel();
        let key = self.update(|schedule, _| schedule.add(reason, failures, sender));
        // Dropped before the receiver: a sender in the queue has one.
        let _place = Place {
            pacer: self,
            reason,
            key,
        };
        match permit.await {
            Ok(permit) => permit,
            // A sender that leaves the queue has sent its permit.
            Err(_) => pending().await,
        }
    }

    /// True if the last attempt to any instance succeeded.
    pub(super) fn has_reachable(&self) -> bool {
        self.lock().schedule.has_reachable()
    }

    /// Completes when no instance is reachable any longer, from the time of this call on.
    pub(super) fn all_down(&self) -> impl Future<Output = ()> + '_ {
        // Registered here, not at the first poll.
        self.all_down.notified()
    }

    /// Raises the rate of attempts for a while, as a call finds no reachable instance.
    pub(super) fn urge(self: &Arc<Self>) {
        self.update(Schedule::urge);
    }

    /// Notes that a connection has ended.
    pub(super) fn descriptor_freed(self: &Arc<Self>) {
        self.update(Schedule::descriptor_freed);
    }

    /// Changes the schedule, and begins all attempts that can begin then.
    fn update<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Schedule<oneshot::Sender<Permit>>, Instant) -> R,
    ) -> R {
        let now = Instant::now();
        let mut state = self.lock();
        let result = change(&mut state.schedule, now);
        let waits = state.begin_due(self, now).is_some();
        // Without a runtime, nothing waits any longer.
        let runtime = (waits && !state.timer)
            .then(Handle::try_current)
            .and_then(Result::ok);
        state.timer |= runtime.is_some();
        drop(state);
        if let Some(runtime) = runtime {
            let timer = Timer {
                pacer: Arc::clone(self),
                ended: false,
            };
            runtime.spawn(timer.run());
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins all attempts that can begin now. Returns the time at which others may.
    fn begin_due(&mut self, pacer: &Arc<Pacer>, now: Instant) -> Option<Instant> {
        loop {
            match self.schedule.next(now) {
                Next::Begin(reason, waiting) => {
                    let permit = Permit {
                        pacer: Some(Arc::clone(pacer)),
                        reason,
                    };
                    if let Err(mut unreceived) = waiting.send(permit) {
                        unreceived.pacer = None;
                        self.schedule.end(reason, End::Cancelled, now);
                    }
                }
                Next::At(at) => return Some(at),
                Next::Nothing => return None,
            }
        }
    }
}

/// Begins attempts whose time has come, as long as some wait for it.
struct Timer {
    pacer: Arc<Pacer>,
    ended: bool,
}

impl Timer {
    async fn run(mut self) {
        loop {
            let next = {
                let mut state = self.pacer.lock();
                let next = state.begin_due(&self.pacer, Instant::now());
                state.timer = next.is_some();
                next
            };
            let Some(at) = next else {
                self.ended = true;
                return;
            };
            sleep_until(at).await;
        }
    }
}

impl Drop for Timer {
    /// A runtime that ends drops its tasks.
    fn drop(&mut self) {
        if !self.ended {
            self.pacer.lock().timer = false;
        }
    }
}

/// A waiting attempt's place in its queue.
struct Place<'p> {
    pacer: &'p Pacer,
    reason: Reason,
    key: Key,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pacer.lock().schedule.remove(self.reason, self.key);
    }
}

/// An attempt that may begin, until it is dropped.
pub(super) struct Permit {
    /// `None` once its end is noted.
    pacer: Option<Arc<Pacer>>,
    reason: Reason,
}

impl Permit {
    /// Notes the end of the attempt. True if it found no file descriptor, and this is to be reported.
    pub(super) fn end(mut self, end: End) -> bool {
        self.note(end)
    }

    fn note(&mut self, end: End) -> bool {
        let Some(pacer) = self.pacer.take() else {
            return false;
        };
        pacer.update(|schedule, now| schedule.end(self.reason, end, now))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.note(End::Cancelled);
    }
}

/// Counts an instance as reachable until dropped.
pub(super) struct Reachable(Arc<Pacer>);

impl Reachable {
    pub(super) fn new(pacer: &Arc<Pacer>) -> Self {
        pacer.update(|schedule, _| schedule.add_reachable());
        Self(Arc::clone(pacer))
    }
}

impl Drop for Reachable {
    fn drop(&mut self) {
        if self.0.update(Schedule::remove_reachable) {
            self.0.all_down.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_no_longer_waits_takes_no_place() {
        let pacer = Arc::new(Pacer::new(1));
        let first = pacer.permit(Reason::First, 0).await;
        let mut gone = Box::pin(pacer.permit(Reason::First, 0));
        let mut received = Box::pin(pacer.permit(Reason::First, 0));
        let mut waiting = Box::pin(pacer.permit(Reason::First, 0));
        assert!(gone.as_mut().now_or_never().is_none());
        assert!(received.as_mut().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(gone);
        first.end(End::Connected);
        assert!(waiting.as_mut().now_or_never().is_none());
        // It has its permit, and gives it back.
        drop(received);
        assert!(waiting.as_mut().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_wait_for_their_time_begin_by_themselves() {
        let pacer = Arc::new(Pacer::new(32));
        let started = Instant::now();
        let attempts = (0..501).map(|_| {
            let pacer = Arc::clone(&pacer);
            async move { pacer.permit(Reason::Unknown, 1).await.end(End::Failed) }
        });
        let all = futures_util::future::join_all(attempts);
        timeout(Duration::from_secs(60), all).await.unwrap();
        let taken = started.elapsed();
        assert!(taken >= Duration::from_millis(1_900), "{taken:?}");
        assert!(taken <= Duration::from_millis(2_100), "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_that_becomes_unreachable_is_noticed() {
        let pacer = Arc::new(Pacer::new(32));
        let instances = [Reachable::new(&pacer), Reachable::new(&pacer)];
        let mut all_down = Box::pin(pacer.all_down());
        let [first, second] = instances;
        drop(first);
        assert!(pacer.has_reachable());
        assert!(all_down.as_mut().now_or_never().is_none());
        drop(second);
        assert!(!pacer.has_reachable());
        assert!(all_down.as_mut().now_or_never().is_some());
    }
}
