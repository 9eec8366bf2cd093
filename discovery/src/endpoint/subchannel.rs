//! The connection of one endpoint, kept up in the background and never by a call.
//!
//! ```text
//! Idle --wake--> Connecting --ok--> Ready --lost--> Connecting (eager) or Idle (lazy)
//!                    |                ^
//!                    '--failed--> Down (backing off, trying again) --ok--'
//! ```
//!
//! A connection that gives no answer, though nothing says that it is broken, is replaced: what it
//! carries goes on, and new calls wait for a new one.
//!
//! A first attempt is `Connecting`: a call with nothing better to do waits for it. After a failure
//! the subchannel stays `TransientFailure` through every further attempt until one succeeds, so that calls pass it
//! over at once however long those attempts hang (gRPC's `TRANSIENT_FAILURE`).

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

/// A connection that broke this soon was hardly one: the next attempt backs off.
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

/// What all subchannels of a channel share.
pub(crate) struct Connector {
    pub(crate) factory: Arc<dyn Factory>,
    /// Connections being made at the same time.
    pub(crate) parallel: Semaphore,
    /// Time one attempt may take.
    pub(crate) timeout: Duration,
    /// Waits after failed attempts.
    pub(crate) backoff: Backoff,
    /// Whether to connect before a call asks for it.
    pub(crate) eager: bool,
    /// Told of every change of state.
    pub(crate) changed: Arc<Notify>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Subchannel {
    state: AtomicU8,
    /// Whether the last attempt to connect failed. Outlasts `TransientFailure`, which a subchannel that connects on
    /// demand leaves after its backoff.
    unreachable: AtomicBool,
    transport: ArcSwapOption<Box<dyn Transport>>,
    connected_at: Mutex<Option<Instant>>,
    last_error: Mutex<Option<Arc<BoxError>>>,
    /// Ends a backoff early, and tells the driver that the subchannel was retired.
    poke: Notify,
    /// Asks for a new connection in place of the one that is ready.
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

    /// Whether the last attempt to connect failed.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Acquire)
    }

    pub(crate) fn transport(&self) -> Option<Arc<Box<dyn Transport>>> {
        self.transport.load_full()
    }

    /// When the last connection was made.
    pub(crate) fn connected_at(&self) -> Option<Instant> {
        *self
            .connected_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the last attempt failed or the last connection broke.
    pub(crate) fn last_error(&self) -> Option<Arc<BoxError>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Starts to connect, if nothing was tried yet.
    pub(crate) fn wake(self: &Arc<Self>, instance: &Arc<Instance>, connector: &Arc<Connector>) {
        if self.state() == ConnectivityState::Idle
            && self.shift(ConnectivityState::Idle, ConnectivityState::Connecting)
        {
            let driver = Driver {
                subchannel: Arc::clone(self),
                instance: Arc::clone(instance),
                connector: Arc::clone(connector),
            };
            tokio::spawn(driver.run());
        }
    }

    /// Tries again now instead of at the end of the backoff.
    pub(crate) fn retry_now(&self) {
        if self.state() == ConnectivityState::TransientFailure {
            self.poke.notify_one();
        }
    }

    /// Replaces this connection, if it is still the one in use. Calls in flight keep it until they
    /// are done.
    ///
    /// A connection over a network that has failed is found out by the kernel only after many
    /// retransmissions, ever further apart; a new one works as soon as the network does.
    pub(crate) fn renew(&self, transport: &Arc<Box<dyn Transport>>) {
        let current = self.transport();
        if current.is_some_and(|current| Arc::ptr_eq(&current, transport)) {
            self.renewal.notify_one();
        }
    }

    /// Takes the subchannel out of use. Calls in flight keep the connection until they are done.
    pub(crate) fn retire(&self) {
        self.state
            .store(ConnectivityState::Shutdown as u8, Ordering::Release);
        self.transport.store(None);
        self.poke.notify_one();
    }

    /// Moves on unless somebody else has, as `retire` may at any time.
    fn shift(&self, from: ConnectivityState, to: ConnectivityState) -> bool {
        self.state
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn remember(&self, error: BoxError) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error));
    }
}

/// The task behind a subchannel; it ends when the subchannel is retired, or idle again.
struct Driver {
    subchannel: Arc<Subchannel>,
    instance: Arc<Instance>,
    connector: Arc<Connector>,
}

impl Driver {
    async fn run(self) {
        let mut failures = 0;
        loop {
            match self.connect().await {
                Some(Ok(connection)) => {
                    let lived = self.carry(connection).await;
                    failures = if lived < SHORT_LIFE { failures + 1 } else { 0 };
                    let next = if self.connector.eager {
                        ConnectivityState::Connecting
                    } else {
                        ConnectivityState::Idle
                    };
                    let kept = self.subchannel.shift(ConnectivityState::Ready, next);
                    self.connector.changed.notify_one();
                    if !kept || next == ConnectivityState::Idle {
                        return;
                    }
                    // A lost connection is made again at once, once.
                    if failures > 1 && !self.pause(failures - 1).await {
                        return;
                    }
                }
                Some(Err(error)) => {
                    failures += 1;
                    self.subchannel.unreachable.store(true, Ordering::Release);
                    let first = self.subchannel.shift(
                        ConnectivityState::Connecting,
                        ConnectivityState::TransientFailure,
                    );
                    if first {
                        warn!(instance = %self.instance, "{}", chain(&error));
                    } else {
                        debug!(instance = %self.instance, failures, "{}", chain(&error));
                    }
                    self.subchannel.remember(error.into());
                    self.connector.changed.notify_one();
                    if !self.pause(failures).await {
                        return;
                    }
                    if !self.connector.eager {
                        self.subchannel
                            .shift(ConnectivityState::TransientFailure, ConnectivityState::Idle);
                        self.connector.changed.notify_one();
                        return;
                    }
                }
                None => return,
            }
        }
    }

    /// One attempt; `None` when the subchannel was retired meanwhile.
    async fn connect(&self) -> Option<Result<Connection, ConnectError>> {
        let attempt = async {
            // Never closed, so a permit always comes.
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
                () = self.subchannel.poke.notified() => {
                    if self.subchannel.state() == ConnectivityState::Shutdown {
                        return None;
                    }
                }
            }
        }
    }

    /// Offers the connection to calls until it is gone; says how long that was.
    async fn carry(&self, connection: Connection) -> Duration {
        let born = Instant::now();
        let Connection {
            transport,
            mut driver,
        } = connection;
        let ready = self
            .subchannel
            .shift(ConnectivityState::Connecting, ConnectivityState::Ready)
            || self.subchannel.shift(
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
            // Retired between the two lines above.
            self.subchannel.transport.store(None);
        }
        debug!(instance = %self.instance, "connected");
        self.connector.changed.notify_one();
        // A retired subchannel drops its transport, and with the last call in flight the driver ends.
        let ended = tokio::select! {
            ended = &mut driver => ended,
            () = self.subchannel.renewal.notified() => {
                warn!(instance = %self.instance, "no answer on this connection; making another");
                tokio::spawn(driver);
                self.subchannel.transport.store(None);
                return born.elapsed();
            }
        };
        self.subchannel.transport.store(None);
        match ended {
            Err(error) if self.subchannel.state() != ConnectivityState::Shutdown => {
                warn!(instance = %self.instance, "connection lost: {}", chain(&*error));
                self.subchannel.remember(error);
            }
            _ => debug!(instance = %self.instance, "connection closed"),
        }
        born.elapsed()
    }

    /// Waits after a failure; false when the subchannel was retired.
    async fn pause(&self, failures: u32) -> bool {
        let wait = self
            .connector
            .backoff
            .after(failures, &mut fastrand::Rng::new());
        // Cut short by `retry_now`; a retired subchannel shows in the state.
        let _cut_short = timeout(wait, self.subchannel.poke.notified()).await;
        self.subchannel.state() != ConnectivityState::Shutdown
    }
}
