//! The connection of one endpoint, maintained in the background and never by a call.
//!
//! ```text
//! Idle --wake--> Connecting --ok--> Ready --lost--> Connecting (eager) or Idle (lazy)
//!                    |                ^
//!                    |                '---ok---.
//!                    '--failed--> TransientFailure (backoff, next attempt)
//! ```
//!
//! A connection that gives no answers, but has not failed, is replaced. Calls in flight stay on it;
//! new calls wait for the new connection.
//!
//! During its first attempt a subchannel is `Connecting`: a call without an alternative waits for
//! it. After a failure it stays `TransientFailure` until an attempt succeeds, so that calls skip it
//! at once however long the attempts take (as gRPC's `TRANSIENT_FAILURE`).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout},
};
use tracing::{debug, warn};

use crate::{
    BoxError,
    backoff::Backoff,
    connection::{ConnectError, Connection, Factory, Transport},
    error::chain,
    instance::Instance,
};

/// A connection shorter than this counts as a failed attempt for the backoff.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// The state of the connection to an instance, as gRPC names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// The settings and limits shared by all subchannels of a channel.
pub(crate) struct Connector {
    pub(crate) factory: Arc<dyn Factory>,
    /// Limits the attempts to connect that run at the same time.
    pub(crate) parallel: Semaphore,
    /// Time limit of one attempt.
    pub(crate) timeout: Duration,
    /// Delay after failed attempts.
    pub(crate) backoff: Backoff,
    /// True if connections are made before a call needs them.
    pub(crate) eager: bool,
    /// Notified after every change of state.
    pub(crate) changed: Arc<Notify>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Subchannel {
    state: AtomicU8,
    /// True if the last attempt to connect failed. Outlasts `TransientFailure`, which a subchannel
    /// that connects on demand leaves after its backoff.
    unreachable: AtomicBool,
    transport: ArcSwapOption<Box<dyn Transport>>,
    connected_at: Mutex<Option<Instant>>,
    last_error: Mutex<Option<Arc<BoxError>>>,
    /// Ends a backoff early, and lets the driver see that the subchannel was retired.
    interrupt: Notify,
    /// Requests a new connection in place of the one that is ready.
    renewal: Notify,
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

    /// The time at which the last connection was made.
    pub(crate) fn connected_at(&self) -> Option<Instant> {
        *self
            .connected_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of the last attempt, or of the last connection that broke.
    pub(crate) fn last_error(&self) -> Option<Arc<BoxError>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Starts to connect if it is idle.
    pub(crate) fn wake(self: &Arc<Self>, instance: &Arc<Instance>, connector: &Arc<Connector>) {
        if self.state() == ConnectivityState::Idle
            && self.transition(ConnectivityState::Idle, ConnectivityState::Connecting)
        {
            let driver = Driver {
                subchannel: Arc::clone(self),
                instance: Arc::clone(instance),
                connector: Arc::clone(connector),
                finished: false,
            };
            tokio::spawn(driver.run());
        }
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
    }

    /// Changes the state; false if it was not `from`, as `retire` may change it at any time.
    fn transition(&self, from: ConnectivityState, to: ConnectivityState) -> bool {
        self.state
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn set_last_error(&self, error: BoxError) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error));
    }
}

/// The task of a subchannel. Ends when the subchannel is retired, or idle again.
struct Driver {
    subchannel: Arc<Subchannel>,
    instance: Arc<Instance>,
    connector: Arc<Connector>,
    finished: bool,
}

impl Drop for Driver {
    /// A runtime that ends drops its tasks: the subchannel must not stay `Ready`.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let subchannel = &self.subchannel;
        subchannel.transport.store(None);
        subchannel.unreachable.store(true, Ordering::Release);
        subchannel.set_last_error("the runtime that drives its connection has ended".into());
        for state in [ConnectivityState::Connecting, ConnectivityState::Ready] {
            subchannel.transition(state, ConnectivityState::TransientFailure);
        }
        self.connector.changed.notify_one();
    }
}

impl Driver {
    async fn run(mut self) {
        self.drive().await;
        self.finished = true;
    }

    async fn drive(&self) {
        let mut failures = 0;
        loop {
            match self.connect().await {
                Some(Ok(connection)) => {
                    let lived = self.serve(connection).await;
                    failures = if lived < SHORT_LIFE { failures + 1 } else { 0 };
                    let next = if self.connector.eager {
                        ConnectivityState::Connecting
                    } else {
                        ConnectivityState::Idle
                    };
                    let kept = self.subchannel.transition(ConnectivityState::Ready, next);
                    self.connector.changed.notify_one();
                    if !kept || next == ConnectivityState::Idle {
                        return;
                    }
                    // The first attempt after a lost connection needs no delay.
                    if failures > 1 && !self.pause(failures - 1).await {
                        return;
                    }
                }
                Some(Err(error)) => {
                    failures += 1;
                    self.subchannel.unreachable.store(true, Ordering::Release);
                    let first = self.subchannel.transition(
                        ConnectivityState::Connecting,
                        ConnectivityState::TransientFailure,
                    );
                    if first {
                        warn!(instance = %self.instance, "{}", chain(&error));
                    } else {
                        debug!(instance = %self.instance, failures, "{}", chain(&error));
                    }
                    self.subchannel.set_last_error(error.into());
                    self.connector.changed.notify_one();
                    if !self.pause(failures).await {
                        return;
                    }
                    if !self.connector.eager {
                        self.subchannel.transition(
                            ConnectivityState::TransientFailure,
                            ConnectivityState::Idle,
                        );
                        self.connector.changed.notify_one();
                        return;
                    }
                }
                None => return,
            }
        }
    }

    /// One attempt; `None` if the subchannel was retired meanwhile.
    async fn connect(&self) -> Option<Result<Connection, ConnectError>> {
        let attempt = async {
            // The semaphore is never closed, so this cannot fail.
            let _permit = self.connector.parallel.acquire().await;
            let limit = self.connector.timeout;
            timeout(limit, self.connector.factory.connect(&self.instance))
                .await
                .unwrap_or(Err(ConnectError::Timeout(limit)))
        };
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                biased;
                result = &mut attempt => return Some(result),
                () = self.subchannel.interrupt.notified() => {
                    if self.subchannel.state() == ConnectivityState::Shutdown {
                        return None;
                    }
                }
            }
        }
    }

    /// Offers the connection to calls until it ends. Returns how long it lasted.
    async fn serve(&self, connection: Connection) -> Duration {
        let born = Instant::now();
        let Connection {
            transport,
            mut driver,
        } = connection;
        let ready = self
            .subchannel
            .transition(ConnectivityState::Connecting, ConnectivityState::Ready)
            || self.subchannel.transition(
                ConnectivityState::TransientFailure,
                ConnectivityState::Ready,
            );
        if !ready {
            return born.elapsed();
        }
        self.subchannel.unreachable.store(false, Ordering::Release);
        *self
            .subchannel
            .connected_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(born);
        self.subchannel.transport.store(Some(Arc::new(transport)));
        if self.subchannel.state() == ConnectivityState::Shutdown {
            // Retired after the transition to `Ready`.
            self.subchannel.transport.store(None);
        }
        debug!(instance = %self.instance, "connected");
        self.connector.changed.notify_one();
        // A retired subchannel drops its transport: the driver ends with the last call in flight.
        let ended = tokio::select! {
            ended = &mut driver => ended,
            () = self.subchannel.renewal.notified() => {
                warn!(instance = %self.instance, "no answer on this connection; replacing it");
                tokio::spawn(driver);
                self.subchannel.transport.store(None);
                return born.elapsed();
            }
        };
        self.subchannel.transport.store(None);
        match ended {
            Err(error) if self.subchannel.state() != ConnectivityState::Shutdown => {
                warn!(instance = %self.instance, "connection lost: {}", chain(&*error));
                self.subchannel.set_last_error(error);
            }
            _ => debug!(instance = %self.instance, "connection closed"),
        }
        born.elapsed()
    }

    /// Waits after a failure; false if the subchannel was retired.
    async fn pause(&self, failures: u32) -> bool {
        let wait = self
            .connector
            .backoff
            .after(failures, &mut fastrand::Rng::new());
        // `retry_now` and `retire` end it early.
        let _interrupted = timeout(wait, self.subchannel.interrupt.notified()).await;
        self.subchannel.state() != ConnectivityState::Shutdown
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::future::BoxFuture;
    use http::{Request, Response};

    use super::*;
    use crate::connection::{RequestBody, SendError, TransportBody};

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
        let connector = Arc::new(Connector {
            factory: Arc::new(Open),
            parallel: Semaphore::new(1),
            timeout: second,
            backoff: Backoff::new(second, second),
            eager: true,
            changed: Arc::default(),
        });
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
