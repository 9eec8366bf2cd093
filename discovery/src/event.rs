//! What happened to a channel and its instances, as typed events for any number of readers.
//!
//! The background tasks and the replacement of the service config emit events; calls do not. An event is
//! built only if someone reads.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use tokio::sync::broadcast;

use crate::instance::{Instance, Withdrawal};

/// Number of events that a reader may lag behind before it loses the oldest.
const CAPACITY: usize = 1024;

/// Something that happened to a channel, see [`Channel::events`](crate::Channel::events).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChannelEvent {
    /// The time by the clock of the machine. Serialized as seconds since 1970 (UTC).
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::unix_seconds")
    )]
    pub time: SystemTime,
    /// What happened.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub kind: ChannelEventKind,
}

/// What happened, and to which instance.
#[derive(Clone, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "event", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum ChannelEventKind {
    /// The registry offers an instance that was not known.
    Added {
        /// The instance.
        instance: Arc<Instance>,
    },
    /// An instance receives no more calls. Those in flight finish.
    Removed {
        /// The instance.
        instance: Arc<Instance>,
        /// The reason, to read.
        reason: &'static str,
    },
    /// A connection to an instance was made.
    Connected {
        /// The instance.
        instance: Arc<Instance>,
    },
    /// The connection to an instance ended. Another attempt follows.
    Disconnected {
        /// The instance.
        instance: Arc<Instance>,
        /// The error; `None` if the server ended the connection in order.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        reason: Option<String>,
    },
    /// An instance cannot be connected to. Reported once, until it is connected again.
    Unreachable {
        /// The instance.
        instance: Arc<Instance>,
        /// The error.
        reason: String,
    },
    /// Outlier ejection keeps calls from an instance, for the first time or for longer.
    Ejected {
        /// The instance.
        instance: Arc<Instance>,
        /// The evidence, to read.
        reason: &'static str,
        /// The time until it is probed. Serialized as `seconds`.
        #[cfg_attr(
            feature = "serde",
            serde(rename = "seconds", serialize_with = "crate::serialize::seconds")
        )]
        time: Duration,
    },
    /// An ejected instance has passed its probe and may receive one trial call.
    Probation {
        /// The instance.
        instance: Arc<Instance>,
    },
    /// An ejected instance receives calls again, at first a small share of them.
    Admitted {
        /// The instance.
        instance: Arc<Instance>,
    },
    /// The health service of an instance does not report `SERVING`, or its watch has failed: the instance
    /// receives no calls, see [`ChannelBuilder::health_service`](crate::ChannelBuilder::health_service).
    NotServing {
        /// The instance.
        instance: Arc<Instance>,
        /// The reason.
        reason: String,
    },
    /// The health service of an instance reports `SERVING` again.
    Serving {
        /// The instance.
        instance: Arc<Instance>,
    },
    /// The registry no longer offers an instance, and it stays as a last resort, see
    /// [`RemovalProtection`](crate::RemovalProtection).
    Protected {
        /// The instance.
        instance: Arc<Instance>,
        /// The reason why the registry does not offer it.
        withdrawal: Withdrawal,
    },
    /// The registry offers an instance again that was kept as a last resort.
    Returned {
        /// The instance.
        instance: Arc<Instance>,
    },
    /// The registry does not answer, or with an error. The last good set stays in use.
    RegistryLost {
        /// The error.
        reason: String,
    },
    /// The registry answers again.
    RegistryBack {
        /// Number of instances that it lists.
        instances: usize,
    },
    /// [`Channel::set_service_config`](crate::Channel::set_service_config) has replaced the service config
    /// by a different one.
    ConfigChanged,
    /// The reader was too slow and has lost this many events before the next one.
    Missed {
        /// Number of lost events.
        events: u64,
    },
}

impl ChannelEventKind {
    /// The instance that the event is about.
    #[must_use]
    pub fn instance(&self) -> Option<&Arc<Instance>> {
        match self {
            Self::Added { instance }
            | Self::Removed { instance, .. }
            | Self::Connected { instance }
            | Self::Disconnected { instance, .. }
            | Self::Unreachable { instance, .. }
            | Self::Ejected { instance, .. }
            | Self::Probation { instance }
            | Self::Admitted { instance }
            | Self::NotServing { instance, .. }
            | Self::Serving { instance }
            | Self::Protected { instance, .. }
            | Self::Returned { instance } => Some(instance),
            Self::RegistryLost { .. }
            | Self::RegistryBack { .. }
            | Self::ConfigChanged
            | Self::Missed { .. } => None,
        }
    }
}

impl From<ChannelEventKind> for ChannelEvent {
    fn from(kind: ChannelEventKind) -> Self {
        Self {
            time: SystemTime::now(),
            kind,
        }
    }
}

/// Hands events to the readers. Its buffer is allocated for the first one.
#[derive(Debug, Default)]
pub(crate) struct EventSender(OnceLock<broadcast::Sender<ChannelEvent>>);

impl EventSender {
    /// Sends an event, if someone reads.
    pub(crate) fn emit(&self, kind: impl FnOnce() -> ChannelEventKind) {
        let sender = self.0.get().filter(|sender| sender.receiver_count() > 0);
        if let Some(sender) = sender {
            // The last reader may have gone since.
            let _readers = sender.send(kind().into());
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ChannelEvent> {
        self.0
            .get_or_init(|| broadcast::Sender::new(CAPACITY))
            .subscribe()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::RecvError;

    use super::*;

    #[tokio::test]
    async fn without_a_reader_no_event_is_built() {
        let sender = EventSender::default();
        let unread = || -> ChannelEventKind { panic!("built without a reader") };
        sender.emit(unread);
        drop(sender.subscribe());
        sender.emit(unread);
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_events_and_is_told_how_many() {
        let sender = EventSender::default();
        let mut reader = sender.subscribe();
        for instances in 0..CAPACITY + 7 {
            sender.emit(|| ChannelEventKind::RegistryBack { instances });
        }
        assert!(matches!(reader.recv().await, Err(RecvError::Lagged(7))));
        let oldest = reader.recv().await.unwrap().kind;
        assert!(matches!(
            oldest,
            ChannelEventKind::RegistryBack { instances: 7 }
        ));
    }
}
