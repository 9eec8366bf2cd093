//! Pings a server that has been silent, and gives it up when it stays so.

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

/// When anything last came over a connection.
#[derive(Debug)]
pub(super) struct LastRead {
    born: Instant,
    millis: AtomicU64,
}

impl LastRead {
    /// Something comes now.
    pub(super) fn now(&self) {
        let millis = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.born + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

impl Default for LastRead {
    fn default() -> Self {
        Self {
            born: Instant::now(),
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
    /// When the ping was sent that is still to be answered.
    asked: Option<Instant>,
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
            asked: None,
        }
    }

    /// Ready when the server has not answered in time.
    pub(super) fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if self.asked.is_some() {
                // An error here is the connection's, which tells it itself.
                let _answered = self.pings.poll_pong(cx);
            }
            // Whatever comes is a sign of life, the answer to a ping or not.
            let last = self.last_read.last();
            if self.asked.is_some_and(|asked| last >= asked) {
                self.asked = None;
                self.due.as_mut().reset(last + self.interval);
            }
            ready!(self.due.as_mut().poll(cx));
            if self.asked.is_some() {
                return Poll::Ready(format!("no answer to a ping within {:?}", self.timeout));
            }
            let now = Instant::now();
            let due = self.last_read.last() + self.interval;
            if due > now {
                self.due.as_mut().reset(due);
                continue;
            }
            // It fails where the connection has, which tells it itself.
            let _sent = self.pings.send_ping(Ping::opaque());
            self.asked = Some(now);
            self.due.as_mut().reset(now + self.timeout);
        }
    }
}
