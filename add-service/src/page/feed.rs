//! One computation for all viewers of the page: frames while there is a viewer, and the last events.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use bootstrap::Stage;
use discovery::{Channel, ChannelEvent, Events};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::{
    sync::{
        Notify, OwnedSemaphorePermit, Semaphore,
        broadcast::{self, error::RecvError},
        watch,
    },
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use super::frame::{Frame, Totals};

/// Time between two frames.
const INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of viewers. Each costs a connection and the sending of its frames.
const MAX_VIEWERS: usize = 32;
/// Number of the last events that a new viewer receives.
const EVENTS: usize = 50;
/// Number of messages that a viewer may lag behind. A frame replaces the one before it, so that a lost
/// one does no harm.
const BACKLOG: usize = 16;

/// See the [module](self). Dropping it ends the computation.
pub(super) struct Feed {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    messages: broadcast::Sender<Bytes>,
    events: Mutex<VecDeque<Bytes>>,
    /// Notified when a viewer comes.
    viewed: Notify,
    places: Arc<Semaphore>,
}

/// A viewer of the page.
pub(super) struct Viewer {
    /// The events so far, then what is sent to all.
    first: VecDeque<Bytes>,
    messages: broadcast::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// Starts to collect events. Must be called inside a tokio runtime.
    pub(super) fn start(channel: &Channel) -> Self {
        let shared = Arc::new(Shared {
            messages: broadcast::Sender::new(BACKLOG),
            events: Mutex::default(),
            viewed: Notify::new(),
            places: Arc::new(Semaphore::new(MAX_VIEWERS)),
        });
        // Subscribed here: the first events come before the task runs.
        let events = channel.events();
        let task = tokio::spawn(Arc::clone(&shared).run(channel.clone(), events));
        Self {
            shared,
            task: task.abort_handle(),
        }
    }

    /// A viewer's place; `None` if all are taken.
    pub(super) fn viewer(&self) -> Option<Viewer> {
        let place = Arc::clone(&self.shared.places).try_acquire_owned().ok()?;
        let (first, messages) = {
            // Under the lock, so that no event is in neither or in both.
            let events = lock(&self.shared.events);
            (events.clone(), self.shared.messages.subscribe())
        };
        self.shared.viewed.notify_one();
        Some(Viewer {
            first,
            messages,
            _place: place,
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn run(self: Arc<Self>, channel: Channel, mut events: Events) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut totals: Option<Totals> = None;
        loop {
            let is_viewed = self.messages.receiver_count() > 0;
            if !is_viewed {
                totals = None;
            }
            tokio::select! {
                event = events.next() => match event {
                    Ok(event) => self.add(&event),
                    Err(_) => return,
                },
                _ = ticks.tick(), if is_viewed => {
                    let snapshot = channel.snapshot();
                    let (frame, next) = Frame::of(&snapshot, totals.as_ref());
                    totals = Some(next);
                    // The last viewer may have gone since.
                    let _viewers = message("frame", &frame).map(|frame| self.messages.send(frame));
                }
                // The first viewer has a frame at once. One more frame for each that comes later would
                // cover a time so short that its rates say nothing.
                () = self.viewed.notified() => if totals.is_none() {
                    ticks.reset_immediately();
                },
            }
        }
    }

    fn add(&self, event: &ChannelEvent) {
        let Some(message) = message("happened", event) else {
            return;
        };
        let mut events = lock(&self.events);
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(message.clone());
        // Without a viewer it has no receiver.
        let _viewers = self.messages.send(message);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message of the stream.
fn message(name: &str, value: &impl Serialize) -> Option<Bytes> {
    let json = serde_json::to_string(value).ok()?;
    Some(Bytes::from(format!("event: {name}\ndata: {json}\n\n")))
}

impl Viewer {
    /// The messages, until the server stops.
    pub(super) fn stream(
        self,
        stage: watch::Receiver<Stage>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold((self, stage), |(mut viewer, mut stage)| async move {
            let message = tokio::select! {
                biased;
                // The sender is dropped with the server.
                _stopping = stage.wait_for(|stage| *stage != Stage::Serving) => return None,
                message = viewer.next() => message?,
            };
            Some((Ok(message), (viewer, stage)))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(message) = self.first.pop_front() {
            return Some(message);
        }
        match self.messages.recv().await {
            Ok(message) => Some(message),
            Err(RecvError::Lagged(count)) => message("missed", &count),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use discovery::{Instance, registry::StaticRegistry};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    /// The frames that a viewer receives within this time.
    async fn frames(viewer: &mut Viewer, time: Duration) -> Vec<Bytes> {
        let end = Instant::now() + time;
        let mut frames = Vec::new();
        while let Ok(Some(message)) = timeout(end - Instant::now(), viewer.next()).await {
            if message.starts_with(b"event: frame") {
                frames.push(message);
            }
        }
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn all_viewers_receive_the_same_frames_and_the_first_one_at_once() {
        let registry = StaticRegistry::new([Instance::new("127.0.0.1", 9).unwrap()]);
        let builder = Channel::from_registry(Arc::new(registry), "feed").eager(false);
        let feed = Feed::start(&builder.build().unwrap());
        let mut first = feed.viewer().unwrap();
        let begun = Instant::now();
        assert!(first.next().await.unwrap().starts_with(b"event: frame"));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        sleep(INTERVAL / 2).await;
        let mut second = feed.viewer().unwrap();
        let time = 4 * INTERVAL;
        let (a, b) = tokio::join!(frames(&mut first, time), frames(&mut second, time));
        assert_eq!(a, b);
        assert_eq!(a.len(), 4);
        drop((first, second));

        // After a time without viewers, the first frame covers no time again.
        sleep(10 * INTERVAL).await;
        let mut again = feed.viewer().unwrap();
        let frame = again.next().await.unwrap();
        let frame = std::str::from_utf8(&frame).unwrap();
        assert!(frame.contains(r#""seconds":0.0,"#), "{frame}");
    }
}
