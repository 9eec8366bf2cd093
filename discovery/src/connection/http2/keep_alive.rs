//! Pings a silent server, and reports it as dead if it stays silent.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

/// The time of the last read from a connection.
#[derive(Debug)]
pub(super) struct LastRead {
    created: Instant,
    millis: AtomicU64,
}

impl LastRead {
    /// Sets the time to now.
    pub(super) fn now(&self) {
        let millis = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.created + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

impl Default for LastRead {
    fn default() -> Self {
        Self {
            created: Instant::now(),
            millis: AtomicU64::new(0),
        }
    }
}

/// The keep-alive of one connection.
pub(super) struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    last_read: Arc<LastRead>,
    pings: PingPong,
    due: Pin<Box<Sleep>>,
    /// The time of the ping that has no answer yet.
    pinged: Option<Instant>,
}

impl KeepAlive {
    pub(super) fn new(
        (interval, timeout): (Duration, Duration),
        last_read: Arc<LastRead>,
        pings: PingPong,
    ) -> Self {
        let due = Box::pin(sleep_until(last_read.last() + interval));
        Self {
            interval,
            timeout,
            last_read,
            pings,
            due,
            pinged: None,
        }
    }

    /// Ready if the server has not answered in time.
    pub(super) fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if self.pinged.is_some() {
                // An error here is the connection's, whose own future returns it.
                let _answered = self.pings.poll_pong(cx);
            }
            // Any bytes are a sign of life, the answer to a ping or not.
            let last = self.last_read.last();
            if self.pinged.is_some_and(|pinged| last >= pinged) {
                self.pinged = None;
                self.due.as_mut().reset(last + self.interval);
            }
            ready!(self.due.as_mut().poll(cx));
            if self.pinged.is_some() {
                return Poll::Ready(format!("no answer to a ping within {:?}", self.timeout));
            }
            let now = Instant::now();
            let due = self.last_read.last() + self.interval;
            if due > now {
                self.due.as_mut().reset(due);
                continue;
            }
            // This fails only with the connection, whose own future returns the error.
            let _sent = self.pings.send_ping(Ping::opaque());
            self.pinged = Some(now);
            self.due.as_mut().reset(now + self.timeout);
        }
    }
}
