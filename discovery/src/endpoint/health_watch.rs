//! Watches the health service of an instance on its connection (gRFC A17).
//!
//! ```text
//!            .----- answer -----> Serving <--> NotServing
//!   Awaited -+                       |             |
//!      ^     '-- UNIMPLEMENTED --> NoService       | stream ended
//!      |                                           v
//!      '------ delay, none after an answer --- Interrupted
//! ```
//!
//! The watch is dropped with the connection.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::{Buf as _, BytesMut};
use fastrand::Rng;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{
    connector::Connector, event_log::Event, serving::WatchedHealth, subchannel::Subchannel,
};
use crate::{
    code::Code,
    connection::Transport,
    error::chain,
    event::ChannelEventKind,
    grpc::{self, Grpc},
    instance::Instance,
    probe,
    protocol::{Head, Protocol as _},
};

/// A watch that lasts as long is not part of a series of failures.
const STEADY: Duration = Duration::from_secs(1);
/// The flag and the length before a message.
const PREFIX: usize = 5;

/// The watch of one connection.
pub(super) struct HealthWatch<'d> {
    pub(super) subchannel: &'d Subchannel,
    pub(super) connector: &'d Connector,
    pub(super) instance: &'d Arc<Instance>,
    pub(super) transport: Arc<Box<dyn Transport>>,
}

/// The end of a stream.
enum End {
    /// The server has no health service that can be watched.
    NoService,
    /// The stream failed, for this reason.
    Failed(String),
}

impl HealthWatch<'_> {
    /// Watches for as long as it is polled, the service that the channel's policy names, if it names one.
    pub(super) async fn run(self) {
        let mut services = self.connector.health.subscribe();
        loop {
            let service = services.borrow_and_update().clone();
            let follow = async {
                match service {
                    None => {
                        self.show(WatchedHealth::Unwatched);
                    }
                    Some(service) => self.follow(&service).await,
                }
                pending::<()>().await;
            };
            tokio::select! {
                changed = services.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = follow => {}
            }
        }
    }

    /// Follows the health of a service, until the server turns out to have no health service.
    async fn follow(&self, service: &str) {
        let mut failures = 0;
        loop {
            self.show(WatchedHealth::Awaited);
            let begun = Instant::now();
            let mut answered = false;
            let reason = match self.stream(service, &mut answered).await {
                End::Failed(reason) => reason,
                End::NoService => return self.no_service(),
            };
            failures = if answered && begun.elapsed() >= STEADY {
                0
            } else {
                failures + 1
            };
            // After an answer the next attempt begins at once, the one after it no more.
            let free = u32::from(answered);
            if failures > free {
                self.interrupted(&reason);
                let delay = self
                    .connector
                    .backoff
                    .after(failures - free, &mut Rng::new());
                sleep(delay).await;
            } else {
                debug!(instance = %self.instance, "health is watched anew: {reason}");
            }
        }
    }

    /// Reads one stream to its end. `answered` becomes true with its first message.
    async fn stream(&self, service: &str, answered: &mut bool) -> End {
        let request = probe::request(probe::WATCH, service);
        let response = match self.transport.send(request).await {
            Ok(response) => response,
            Err(error) => return End::Failed(chain(&*error.source)),
        };
        let (mut parts, mut body) = response.into_parts();
        match Grpc::head(&mut parts) {
            Head::Open | Head::Reply(_) => {}
            Head::Status(code) | Head::WrongServer(code) => return ended(code),
        }
        let mut buffer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return End::Failed(chain(&*error)),
            };
            if let Some(trailers) = frame.trailers_ref() {
                return ended(grpc::status(trailers).unwrap_or(Code::Unknown));
            }
            if let Some(data) = frame.data_ref() {
                buffer.extend_from_slice(data);
            }
            loop {
                match next(&mut buffer) {
                    Ok(Some(serving)) => {
                        *answered = true;
                        self.report(serving);
                    }
                    Ok(None) => break,
                    Err(reason) => return End::Failed(reason.to_owned()),
                }
            }
        }
        End::Failed("the stream ended without a status".to_owned())
    }

    /// Shows a health. True if it is another one.
    fn show(&self, health: WatchedHealth) -> bool {
        let changed = self.subchannel.set_watched_health(health);
        if changed {
            self.subchannel.settled.notify_waiters();
            self.connector.changed.notify_one();
        }
        changed
    }

    /// The server says whether it serves.
    fn report(&self, serving: bool) {
        let before = self.subchannel.watched_health();
        let health = if serving {
            WatchedHealth::Serving
        } else {
            WatchedHealth::NotServing
        };
        if !self.show(health) {
            return;
        }
        if !serving {
            self.refused(health.refusal().unwrap_or_default());
        } else if before.refusal().is_some() {
            if self.connector.log.admits(Event::Serving) {
                info!(instance = %self.instance, "reports SERVING again");
            }
            self.serves();
        }
    }

    fn interrupted(&self, reason: &str) {
        if self.show(WatchedHealth::Interrupted) {
            self.refused(&format!("the watch of its health has failed: {reason}"));
        }
    }

    fn refused(&self, reason: &str) {
        if self.connector.log.admits(Event::NotServing) {
            warn!(instance = %self.instance, "receives no calls: {reason}");
        }
        self.connector.events.emit(|| ChannelEventKind::NotServing {
            instance: Arc::clone(self.instance),
            reason: reason.to_owned(),
        });
    }

    fn serves(&self) {
        self.connector.events.emit(|| ChannelEventKind::Serving {
            instance: Arc::clone(self.instance),
        });
    }

    fn no_service(&self) {
        if self.show(WatchedHealth::NoService) && self.connector.log.admits(Event::NoHealthService)
        {
            warn!(
                instance = %self.instance,
                "has no health service to watch (UNIMPLEMENTED): it receives calls on this connection"
            );
        }
    }
}

/// The end of a stream by a status.
fn ended(code: Code) -> End {
    match code {
        Code::Unimplemented => End::NoService,
        code => End::Failed(format!("the stream ended with {code}")),
    }
}

/// Takes the next whole message off the buffer: true for `SERVING`.
fn next(buffer: &mut BytesMut) -> Result<Option<bool>, &'static str> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let [compressed, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || length > probe::LIMIT {
        return Err("a message is compressed or too long");
    }
    if buffer.len() < PREFIX + length {
        return Ok(None);
    }
    buffer.advance(PREFIX);
    let message = buffer.split_to(length);
    let serving = probe::is_serving(&message).ok_or("a message is malformed")?;
    Ok(Some(serving))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_arrive() {
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for byte in [0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 2, 0, 0, 0, 0, 0] {
            buffer.extend_from_slice(&[byte]);
            seen.extend(next(&mut buffer).unwrap());
        }
        assert_eq!(seen, [true, false, false]);
        for bad in [&[1, 0, 0, 0, 0][..], &[0, 0, 1, 0, 0], &[0, 0, 0, 0, 1, 8]] {
            assert!(next(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
    }
}
