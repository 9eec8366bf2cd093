//! The connection of one endpoint, maintained in the background and never by a call.
//!
//! ```text
//! Idle --wake--> Connecting --ok--> Ready --lost--> Connecting (eager) or Idle (on demand)
//!                    |                ^
//!                    |                '---ok---.
//!                    '--failed--> TransientFailure (backoff, next attempt)
//! ```
//!
//! After a failed attempt others follow until one succeeds, also where connections are made on demand:
//! a call has needed this one.
//!
//! A connection that gives no answers, but has not failed, is replaced. Calls in flight stay on it;
//! new calls wait for the new connection.
//!
//! A connection that the server ends in order after answers (GOAWAY, `NO_ERROR`) is not a failure:
//! the next attempt begins at once, while calls in flight finish on the old connection.
//!
//! During its first attempt a subchannel is `Connecting`: a call without an alternative waits for
//! it. After a failure it stays `TransientFailure` until an attempt succeeds, so that calls skip it
//! at once however long the attempts take (as gRPC's `TRANSIENT_FAILURE`).

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tokio::{sync::Notify, time::Instant};

use super::{failures::Failures, serving::WatchedHealth};
use crate::{BoxError, connection::Transport};

/// The state of the connection to an instance, as gRPC names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[repr(u8)]
#[non_exhaustive]
pub enum ConnectivityState {
    /// No attempt to connect yet; a call starts one.
    Idle,
    /// Connecting for the first time, or again after a working connection was lost.
    Connecting,
    /// Connected.
    Ready,
    /// The last attempt to connect failed; another follows after a backoff.
    TransientFailure,
    /// Removed from the set: no new calls; calls in flight finish.
    Shutdown,
}

impl ConnectivityState {
    const ALL: [Self; 5] = [
        Self::Idle,
        Self::Connecting,
        Self::Ready,
        Self::TransientFailure,
        Self::Shutdown,
    ];
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Subchannel {
    state: AtomicU8,
    /// True if the last attempt to connect failed. False in `TransientFailure` for lack of a file
    /// descriptor.
    pub(super) unreachable: AtomicBool,
    /// The [`WatchedHealth`] of the current connection.
    health: AtomicU8,
    pub(super) transport: ArcSwapOption<Box<dyn Transport>>,
    record: Mutex<Record>,
    /// Ends a backoff early, and lets the driver see that the subchannel was retired.
    pub(super) interrupt: Notify,
    /// Requests a new connection in place of the one that is ready.
    pub(super) renewal: Notify,
    /// Notified when `Connecting` has ended.
    pub(super) settled: Notify,
}

/// The past of a subchannel. It outlasts the driver of one that connects on demand.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) connected_at: Option<Instant>,
    pub(super) last_error: Option<Arc<BoxError>>,
    pub(super) failures: Failures,
}

impl Record {
    /// Notes the end of a connection. Returns the number of failures in a row.
    pub(super) fn end_connection(&mut self, useful: bool) -> u32 {
        if useful {
            self.failures = Failures::default();
        } else {
            self.failures.add_short_life();
        }
        self.failures.count()
    }
}

impl std::fmt::Debug for dyn Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transport")
    }
}

impl Subchannel {
    pub(crate) fn state(&self) -> ConnectivityState {
        ConnectivityState::ALL
            [usize::from(self.state.load(Ordering::Acquire)).min(ConnectivityState::ALL.len() - 1)]
    }

    /// True if the last attempt to connect failed.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Acquire)
    }

    pub(crate) fn transport(&self) -> Option<Arc<Box<dyn Transport>>> {
        self.transport.load_full()
    }

    /// The health that the instance reports on this connection.
    pub(crate) fn watched_health(&self) -> WatchedHealth {
        WatchedHealth::of(self.health.load(Ordering::Acquire))
    }

    /// Sets it. True if it is another one.
    pub(super) fn set_watched_health(&self, health: WatchedHealth) -> bool {
        self.health.swap(health as u8, Ordering::AcqRel) != health as u8
    }

    /// Completes when the connection is made or cannot be made, from the time of this call on.
    pub(crate) fn settled(&self) -> impl Future<Output = ()> + '_ {
        // Registered here, not at the first poll.
        self.settled.notified()
    }

    /// The time at which the last connection was made.
    pub(crate) fn connected_at(&self) -> Option<Instant> {
        self.record().connected_at
    }

    /// The error of the last attempt, or of the last connection that broke.
    pub(crate) fn last_error(&self) -> Option<Arc<BoxError>> {
        self.record().last_error.clone()
    }

    /// Ends the current backoff: the next attempt starts now.
    pub(crate) fn retry_now(&self) {
        if self.state() == ConnectivityState::TransientFailure {
            self.interrupt.notify_one();
        }
    }

    /// Replaces this connection, if it is still the one in use. Calls in flight stay on it.
    ///
    /// The kernel detects a failed network only after many retransmissions at growing intervals. A
    /// new connection works as soon as the network does.
    pub(crate) fn renew(&self, transport: &Arc<Box<dyn Transport>>) {
        let current = self.transport();
        if current.is_some_and(|current| Arc::ptr_eq(&current, transport)) {
            self.renewal.notify_one();
        }
    }

    /// Takes the subchannel out of use. The connection closes after its last call.
    pub(crate) fn retire(&self) {
        self.state
            .store(ConnectivityState::Shutdown as u8, Ordering::Release);
        self.transport.store(None);
        self.interrupt.notify_one();
        self.settled.notify_waiters();
    }

    /// Changes the state; false if it was not `from`, as `retire` may change it at any time.
    pub(super) fn transition(&self, from: ConnectivityState, to: ConnectivityState) -> bool {
        self.state
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        time::Duration,
    };

    use futures_util::future::BoxFuture;
    use http::{Request, Response};

    use super::*;
    use crate::{
        backoff::Backoff,
        connection::{ConnectError, Connection, Factory, RequestBody, SendError, TransportBody},
        endpoint::connector::Connector,
        instance::Instance,
        metrics::Target,
    };

    /// Connects at once and never closes.
    struct Open;

    impl Factory for Open {
        fn connect<'a>(
            &'a self,
            _: &'a Instance,
        ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
            Box::pin(ready(Ok(Connection::new(Self, pending()))))
        }
    }

    impl Transport for Open {
        fn send(
            &self,
            _: Request<RequestBody>,
        ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
            Box::pin(pending())
        }

        fn is_closed(&self) -> bool {
            false
        }
    }

    #[test]
    fn is_not_ready_after_its_runtime_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let second = Duration::from_secs(1);
        let backoff = Backoff::new(second, second);
        let connector = Arc::new(Connector::new(
            Arc::new(Open),
            1,
            second,
            backoff,
            true,
            Target::of("test://subchannel", "s").metrics(),
        ));
        let subchannel = Arc::<Subchannel>::default();
        runtime.block_on(async {
            let instance = Arc::new(Instance::new("127.0.0.1", 1).unwrap());
            subchannel.wake(&instance, &connector);
            connector.changed.notified().await;
        });
        assert_eq!(subchannel.state(), ConnectivityState::Ready);
        assert!(subchannel.transport().is_some());

        drop(runtime);
        assert_eq!(subchannel.state(), ConnectivityState::TransientFailure);
        assert!(subchannel.is_unreachable() && subchannel.transport().is_none());
        let error = subchannel.last_error().unwrap().to_string();
        assert!(error.contains("runtime"), "{error}");
    }
}
