//! Connects a subchannel, and connects it again when the connection has ended.

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::BoxFuture;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use super::{
    connector::Connector,
    event_log::Event,
    failures::Delay,
    health_watch::HealthWatch,
    pacer::Reachable,
    schedule::Reason,
    serving::WatchedHealth,
    subchannel::{ConnectivityState, Subchannel},
};
use crate::{
    BoxError,
    connection::{ConnectError, Connection, Transport},
    error::chain,
    event::ChannelEventKind,
    instance::Instance,
};

/// A connection shorter than this counts as a failed attempt for the backoff, unless the server ended
/// it in order after answers.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// The watch of the health on a connection.
type Watch<'d> = Pin<Box<dyn Future<Output = ()> + Send + 'd>>;

/// Runs the watch, if there is one.
async fn run(watch: &mut Option<Watch<'_>>) {
    match watch {
        Some(watch) => watch.await,
        None => pending().await,
    }
}

struct Driver {
    subchannel: Arc<Subchannel>,
    instance: Arc<Instance>,
    connector: Arc<Connector>,
    finished: bool,
}

/// The driver of a connection, in a task of its own: each frame wakes it, which then costs no look at what
/// else ends the connection. Dropping it closes the connection.
struct RunningDriver(Option<JoinHandle<Result<(), BoxError>>>);

impl RunningDriver {
    fn spawn(driver: BoxFuture<'static, Result<(), BoxError>>) -> Self {
        Self(Some(tokio::spawn(driver)))
    }

    /// Waits for its end. Cancel safe.
    async fn ended(&mut self) -> Result<(), BoxError> {
        match &mut self.0 {
            Some(task) => task.await?,
            None => pending().await,
        }
    }

    /// Lets it go on by itself.
    fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for RunningDriver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Counts the end of a connection, however it ends.
struct OpenConnection<'c>(&'c Connector);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.target.disconnected.increment(1);
    }
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
        subchannel.record().last_error = Some(Arc::new(
            "the runtime that drives its connection has ended".into(),
        ));
        for state in [ConnectivityState::Connecting, ConnectivityState::Ready] {
            subchannel.transition(state, ConnectivityState::TransientFailure);
        }
        subchannel.settled.notify_waiters();
        self.connector.changed.notify_one();
    }
}

impl Subchannel {
    /// Starts to connect if it is idle.
    pub(crate) fn wake(self: &Arc<Self>, instance: &Arc<Instance>, connector: &Arc<Connector>) {
        if self.state() == ConnectivityState::Idle
            && self.transition(ConnectivityState::Idle, ConnectivityState::Connecting)
        {
            tokio::spawn(Driver::new(self, instance, connector).run());
        }
    }
}

impl Driver {
    fn new(
        subchannel: &Arc<Subchannel>,
        instance: &Arc<Instance>,
        connector: &Arc<Connector>,
    ) -> Self {
        Self {
            subchannel: Arc::clone(subchannel),
            instance: Arc::clone(instance),
            connector: Arc::clone(connector),
            finished: false,
        }
    }

    async fn run(mut self) {
        self.drive().await;
        self.finished = true;
    }

    async fn drive(&self) {
        let mut reachable = None;
        // A subchannel whose last attempt failed has a driver, so this one begins anew.
        let mut reason = match self.subchannel.connected_at() {
            Some(_) => Reason::Lost,
            None => Reason::First,
        };
        while let Some(connected) = self.connect(reason).await {
            match connected {
                Ok(connection) => {
                    reachable.get_or_insert_with(|| Reachable::new(&self.connector.pacer));
                    let _open = OpenConnection(&self.connector);
                    let useful = self.serve(connection).await;
                    self.connector.pacer.descriptor_freed();
                    let Some(next) = self.after_connection(useful).await else {
                        return;
                    };
                    reason = next;
                }
                Err(error) if error.is_shortage() => self.note_shortage(error),
                Err(error) => {
                    reachable = None;
                    let delay = self.note_failure(error);
                    self.pause(delay).await;
                    reason = match self.subchannel.connected_at() {
                        Some(_) => Reason::Known,
                        None => Reason::Unknown,
                    };
                }
            }
            if self.subchannel.state() == ConnectivityState::Shutdown {
                return;
            }
        }
    }

    /// One attempt; `None` if the subchannel was retired meanwhile.
    async fn connect(&self, reason: Reason) -> Option<Result<Connection, ConnectError>> {
        let failures = self.subchannel.record().failures.count();
        let attempt = self.connector.connect(&self.instance, reason, failures);
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

    /// Offers the connection to calls until it ends. True if it was of use: it lasted, or the server
    /// ended it in order after answers.
    async fn serve(&self, connection: Connection) -> bool {
        let subchannel = &self.subchannel;
        let born = Instant::now();
        let Connection { transport, driver } = connection;
        let ready = subchannel.transition(ConnectivityState::Connecting, ConnectivityState::Ready)
            || subchannel.transition(
                ConnectivityState::TransientFailure,
                ConnectivityState::Ready,
            );
        if !ready {
            return false;
        }
        let was_unreachable = subchannel.unreachable.swap(false, Ordering::AcqRel);
        subchannel.record().connected_at = Some(born);
        let transport = Arc::new(transport);
        let mut watch = Some(self.watch(&transport));
        subchannel.transport.store(Some(transport));
        if subchannel.state() == ConnectivityState::Shutdown {
            // Retired after the transition to `Ready`.
            subchannel.transport.store(None);
        }
        subchannel.settled.notify_waiters();
        let log = &self.connector.log;
        if was_unreachable && log.admits(Event::Reachable) {
            info!(instance = %self.instance, "connected again");
        } else {
            debug!(instance = %self.instance, "connected");
        }
        self.emit(|instance| ChannelEventKind::Connected { instance });
        self.connector.changed.notify_one();
        let mut driver = RunningDriver::spawn(driver);
        // A retired subchannel drops its transport: the driver ends with the last call in flight.
        let ended = loop {
            tokio::select! {
            ended = driver.ended() => break ended,
            () = run(&mut watch) => watch = None,
            () = subchannel.interrupt.notified() => {
                // The watch is a call in flight that does not end by itself.
                if subchannel.state() == ConnectivityState::Shutdown {
                    watch = None;
                }
            }
            () = subchannel.renewal.notified() => {
                if log.admits(Event::Replaced) {
                    warn!(instance = %self.instance, "no answer on this connection; replacing it");
                }
                self.emit(|instance| ChannelEventKind::Disconnected {
                    instance,
                    reason: Some("no answer on this connection; it is replaced".to_owned()),
                });
                driver.detach();
                subchannel.transport.store(None);
                return born.elapsed() >= SHORT_LIFE;
            }
            }
        };
        drop(watch);
        let answered = subchannel
            .transport
            .swap(None)
            .is_some_and(|transport| transport.has_answered());
        let in_order = ended.is_ok();
        match ended {
            Err(error) if subchannel.state() != ConnectivityState::Shutdown => {
                if log.admits(Event::Lost) {
                    warn!(instance = %self.instance, "connection lost: {}", chain(&*error));
                } else {
                    debug!(instance = %self.instance, "connection lost: {}", chain(&*error));
                }
                self.emit(|instance| ChannelEventKind::Disconnected {
                    instance,
                    reason: Some(chain(&*error)),
                });
                subchannel.record().last_error = Some(Arc::new(error));
            }
            _ => {
                debug!(instance = %self.instance, answered, "connection closed in order");
                if subchannel.state() != ConnectivityState::Shutdown {
                    let reason = None;
                    self.emit(|instance| ChannelEventKind::Disconnected { instance, reason });
                }
            }
        }
        in_order && answered || born.elapsed() >= SHORT_LIFE
    }

    /// The watch of the instance's health on a new connection. It lasts as long as the connection.
    fn watch(&self, transport: &Arc<Box<dyn Transport>>) -> Watch<'_> {
        let is_watched = self.connector.health.borrow().is_some();
        self.subchannel.set_watched_health(if is_watched {
            WatchedHealth::Awaited
        } else {
            WatchedHealth::Unwatched
        });
        let watch = HealthWatch {
            subchannel: &self.subchannel,
            connector: &self.connector,
            instance: &self.instance,
            transport: Arc::clone(transport),
        };
        Box::pin(watch.run())
    }

    /// Follows up on the end of a connection. Returns the reason of the next attempt; `None` if it
    /// waits for a call.
    async fn after_connection(&self, useful: bool) -> Option<Reason> {
        let failures = self.subchannel.record().end_connection(useful);
        // The first attempt after a lost connection needs no delay.
        let delay =
            (failures > 1).then(|| self.connector.backoff.after(failures - 1, &mut Rng::new()));
        let next = match delay {
            _ if self.connector.eager => ConnectivityState::Connecting,
            Some(_) => ConnectivityState::TransientFailure,
            None => ConnectivityState::Idle,
        };
        let kept = self.subchannel.transition(ConnectivityState::Ready, next);
        self.connector.changed.notify_one();
        if !kept || next == ConnectivityState::Idle {
            return None;
        }
        let Some(delay) = delay else {
            return Some(Reason::Lost);
        };
        self.doze(delay).await;
        Some(Reason::Known)
    }

    /// Notes that there was no file descriptor for an attempt. This says nothing about the instance,
    /// so there is no delay: the next attempt waits for a descriptor with the others.
    fn note_shortage(&self, error: ConnectError) {
        self.subchannel.record().last_error = Some(Arc::new(error.into()));
        self.show_failure();
    }

    /// Notes a failed attempt, and returns the delay before the next one.
    fn note_failure(&self, error: ConnectError) -> Delay {
        let (subchannel, connector) = (&self.subchannel, &self.connector);
        let first = !subchannel.unreachable.swap(true, Ordering::AcqRel);
        let now = Instant::now();
        let others_reachable = connector.pacer.has_reachable();
        let (delay, failures) = {
            let mut record = subchannel.record();
            record.failures.add(now, others_reachable);
            let was_connected = record.connected_at.is_some();
            let rng = &mut Rng::new();
            let delay = record
                .failures
                .delay(now, &connector.backoff, was_connected, rng);
            (delay, record.failures.count())
        };
        if first && connector.log.admits(Event::Unreachable) {
            warn!(instance = %self.instance, "{}", chain(&error));
        } else {
            debug!(instance = %self.instance, failures, "{}", chain(&error));
        }
        if first {
            self.emit(|instance| ChannelEventKind::Unreachable {
                instance,
                reason: chain(&error),
            });
        }
        subchannel.record().last_error = Some(Arc::new(error.into()));
        self.show_failure();
        delay
    }

    /// Reports an event of the instance to those who read.
    fn emit(&self, kind: impl FnOnce(Arc<Instance>) -> ChannelEventKind) {
        let events = &self.connector.events;
        events.emit(|| kind(Arc::clone(&self.instance)));
    }

    /// Shows that calls cannot use the subchannel. Another failure in a row changes nothing.
    fn show_failure(&self) {
        if self.subchannel.transition(
            ConnectivityState::Connecting,
            ConnectivityState::TransientFailure,
        ) {
            self.subchannel.settled.notify_waiters();
            self.connector.changed.notify_one();
        }
    }

    /// Waits after a failed attempt. `retry_now` and `retire` end it early.
    async fn pause(&self, delay: Delay) {
        let delay = match delay {
            Delay::Usual(delay) => return self.doze(delay).await,
            Delay::Rare(delay) => delay,
        };
        let due = Instant::now() + delay;
        // Begins before the look at the others, so that no change between the two is missed.
        let all_down = self.connector.pacer.all_down();
        if self.connector.pacer.has_reachable() {
            tokio::select! {
                () = self.doze(delay) => return,
                () = all_down => {}
            }
        }
        // No other instance is left: this one may have come back. Many wake up here at once.
        let spread = self.connector.backoff.ceiling.mul_f64(Rng::new().f64());
        let left = due.saturating_duration_since(Instant::now());
        self.doze(left.min(spread)).await;
    }

    /// Sleeps, unless interrupted.
    async fn doze(&self, delay: Duration) {
        let _interrupted = timeout(delay, self.subchannel.interrupt.notified()).await;
    }
}
