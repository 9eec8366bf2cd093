//! Limits the log lines about single endpoints: of many alike within a short time the first are
//! written, and the number of the others.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

/// Lines of one kind written within [`WINDOW`].
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// The kinds of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Unreachable,
    Reachable,
    Lost,
    Replaced,
    Ejected,
    Admitted,
    Added,
    Removed,
    NotServing,
    Serving,
    NoHealthService,
}

impl Event {
    const ALL: [Self; 11] = [
        Self::Unreachable,
        Self::Reachable,
        Self::Lost,
        Self::Replaced,
        Self::Ejected,
        Self::Admitted,
        Self::Added,
        Self::Removed,
        Self::NotServing,
        Self::Serving,
        Self::NoHealthService,
    ];
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct EventLog([Mutex<Window>; Event::ALL.len()]);

#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    events: u32,
}

impl EventLog {
    /// True if a line about this event is to be written now. The others are counted.
    pub(crate) fn admits(&self, event: Event) -> bool {
        let now = Instant::now();
        let (more, admitted) = {
            let mut window = self.window(event);
            let more = window.end(now);
            window.begun.get_or_insert(now);
            window.events = window.events.saturating_add(1);
            (more, window.events <= LINES)
        };
        report(event, more);
        admitted
    }

    /// Writes the numbers of the lines that were left out, once their time is over.
    pub(crate) fn summarize(&self) {
        let now = Instant::now();
        for event in Event::ALL {
            let more = self.window(event).end(now);
            report(event, more);
        }
    }

    fn window(&self, event: Event) -> MutexGuard<'_, Window> {
        self.0[event as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Ends the window if its time is over. Returns the number of lines that it left out.
    fn end(&mut self, now: Instant) -> u32 {
        if self.begun.is_none_or(|begun| now < begun + WINDOW) {
            return 0;
        }
        let ended = std::mem::take(self);
        ended.events.saturating_sub(LINES)
    }
}

/// Writes the number of events that had no line of their own.
fn report(event: Event, more: u32) {
    if more == 0 {
        return;
    }
    match event {
        Event::Unreachable => warn!(more, "more instances cannot be reached"),
        Event::Reachable => info!(more, "more instances can be reached again"),
        Event::Lost => warn!(more, "more connections lost"),
        Event::Replaced => warn!(more, "more connections without an answer replaced"),
        Event::Ejected => warn!(more, "more instances ejected"),
        Event::Admitted => info!(more, "more instances admitted again"),
        Event::Added => info!(more, "more instances added"),
        Event::Removed => info!(more, "more instances removed"),
        Event::NotServing => warn!(more, "more instances do not report SERVING"),
        Event::Serving => info!(more, "more instances report SERVING again"),
        Event::NoHealthService => warn!(more, "more instances have no health service to watch"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_many_events_the_first_have_lines_and_the_others_are_counted() {
        let log = EventLog::default();
        let admitted = |event| (0..5_000).filter(|_| log.admits(event)).count();
        assert_eq!(admitted(Event::Unreachable), 10);
        // Each kind has a number of its own.
        assert_eq!(admitted(Event::Lost), 10);
        assert_eq!(admitted(Event::Unreachable), 0);
        let now = Instant::now();
        assert_eq!(log.window(Event::Unreachable).end(now), 0);
        advance(WINDOW).await;
        let now = Instant::now();
        assert_eq!(log.window(Event::Unreachable).end(now), 9_990);
        assert_eq!(log.window(Event::Unreachable).end(now), 0);
        assert_eq!(admitted(Event::Unreachable), 10);
    }
}
