//! The events of a channel, as one reader receives them.

use tokio::sync::broadcast::{self, error::RecvError};

use super::status::ChannelEnded;
use crate::event::{ChannelEvent, ChannelEventKind};

/// A reader of a channel's events. Each reader receives all of them.
///
/// It may lag behind by 1024 events. Then it loses the oldest, and receives
/// [`Missed`](ChannelEventKind::Missed) with their number in their place.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<ChannelEvent>,
}

impl Events {
    pub(super) fn new(receiver: broadcast::Receiver<ChannelEvent>) -> Self {
        Self { receiver }
    }

    /// Waits for the next event.
    ///
    /// Cancel safe: no event is lost.
    ///
    /// # Errors
    ///
    /// If the channel was dropped or its runtime has ended, and all events have been read.
    pub async fn next(&mut self) -> Result<ChannelEvent, ChannelEnded> {
        match self.receiver.recv().await {
            Ok(event) => Ok(event),
            Err(RecvError::Lagged(events)) => Ok(ChannelEventKind::Missed { events }.into()),
            Err(RecvError::Closed) => Err(ChannelEnded),
        }
    }
}
