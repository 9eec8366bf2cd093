//! Recognizes a flood of HTTP/2 control frames on one connection.
//!
//! A connection has a reserve of control frames, which time and useful frames restore. Clients that
//! measure the bandwidth (gRPC's BDP estimation) or update windows for each message send a few control
//! frames per useful frame. A client that sends nothing else runs out of the reserve.
//!
//! Streams that are reset have a reserve of their own: HEADERS and `RST_STREAM` by turns (rapid reset,
//! CVE-2023-44487) make the server begin and abandon work without limit.

use std::time::Duration;

use tokio::time::Instant;

use crate::frames::{Head, kind};

/// Control frames that a client may send at once, and per second.
const CONTROL: Rate = Rate {
    burst: 1_000,
    per_second: 100,
};
/// Control frames that each useful frame allows, in either direction: two windows to update, a ping.
const PER_USEFUL: u32 = 3;
/// Streams that a client may reset at once, and per second. A client whose calls all end at their
/// deadline resets each.
const RESETS: Rate = Rate {
    burst: 2_000,
    per_second: 1_000,
};

/// A rate with a burst.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    per_second: u32,
}

/// The rest of a [`Rate`].
#[derive(Debug)]
struct Reserve {
    rate: Rate,
    left: u32,
    /// The clock is read only when nothing is left.
    filled: Instant,
}

impl Reserve {
    fn full(rate: Rate) -> Self {
        Self {
            rate,
            left: rate.burst,
            filled: Instant::now(),
        }
    }

    /// Takes one. False if none is left.
    fn take(&mut self) -> bool {
        if self.left == 0 {
            self.fill();
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }

    #[cold]
    fn fill(&mut self) {
        let each = Duration::from_secs(1) / self.rate.per_second;
        let count = self.filled.elapsed().as_nanos() / each.as_nanos();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count >= self.rate.burst {
            self.left = self.rate.burst;
            self.filled = Instant::now();
        } else {
            self.left = count;
            self.filled += each * count;
        }
    }

    fn give(&mut self, count: u32) {
        self.left = (self.left + count).min(self.rate.burst);
    }
}

/// The kinds of floods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    Control,
    Resets,
}

impl Flood {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Control => "control frames (PING, SETTINGS, empty DATA and others)",
            Self::Resets => "streams that are reset",
        }
    }
}

/// The reserves of one connection.
#[derive(Debug)]
pub(crate) struct FloodGuard {
    control: Reserve,
    resets: Reserve,
}

impl FloodGuard {
    pub(crate) fn new() -> Self {
        Self {
            control: Reserve::full(CONTROL),
            resets: Reserve::full(RESETS),
        }
    }

    /// Counts a frame from the client.
    ///
    /// # Errors
    ///
    /// The kind of the flood, if the reserve is used up.
    pub(crate) fn received(&mut self, head: Head) -> Result<(), Flood> {
        if head.is_useful() {
            self.control.give(PER_USEFUL);
            return Ok(());
        }
        let (reserve, flood) = match head.kind {
            kind::RST_STREAM => (&mut self.resets, Flood::Resets),
            _ => (&mut self.control, Flood::Control),
        };
        reserve.take().then_some(()).ok_or(flood)
    }

    /// Counts a frame to the client.
    pub(crate) fn sent(&mut self, head: Head) {
        if head.is_useful() {
            self.control.give(PER_USEFUL);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn head(kind: u8) -> Head {
        Head {
            length: 8,
            kind,
            flags: 0,
            stream: 1,
        }
    }

    /// Frames until the guard ends the connection.
    fn until_flood(guard: &mut FloodGuard, kinds: &[u8]) -> (u32, Flood) {
        let mut count = 0;
        for kind in kinds.iter().cycle() {
            if let Err(flood) = guard.received(head(*kind)) {
                return (count, flood);
            }
            count += 1;
            assert!(count < 1_000_000, "{kinds:?} is no flood");
        }
        unreachable!()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_ends_after_its_burst_and_the_rate_restores_it() {
        for kind in [PING, 4, 2, WINDOW_UPDATE, kind::CONTINUATION, 77] {
            let mut guard = FloodGuard::new();
            assert_eq!(until_flood(&mut guard, &[kind]), (1_000, Flood::Control));
            assert_eq!(until_flood(&mut guard, &[kind]).0, 0);
            advance(Duration::from_secs(2)).await;
            assert_eq!(until_flood(&mut guard, &[kind]).0, 200);
            advance(Duration::from_secs(3_600)).await;
            assert_eq!(until_flood(&mut guard, &[kind]).0, 1_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rapid_reset_is_a_flood_with_whole_requests_too() {
        for kinds in [
            &[kind::HEADERS, kind::RST_STREAM][..],
            &[kind::HEADERS, kind::DATA, kind::DATA, kind::RST_STREAM],
        ] {
            let (count, flood) = until_flood(&mut FloodGuard::new(), kinds);
            assert_eq!(flood, Flood::Resets);
            let resets = count / u32::try_from(kinds.len()).unwrap();
            assert_eq!(resets, 2_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn control_frames_between_useful_ones_are_no_flood() {
        let mut guard = FloodGuard::new();
        for _ in 0..100_000 {
            // A call of a client that updates both windows for each message and pings for each.
            for kind in [
                kind::HEADERS,
                kind::DATA,
                WINDOW_UPDATE,
                WINDOW_UPDATE,
                PING,
            ] {
                guard.received(head(kind)).unwrap();
            }
        }
        for _ in 0..100_000 {
            // A stream of messages to a client that does so.
            guard.sent(head(kind::DATA));
            for kind in [WINDOW_UPDATE, WINDOW_UPDATE, PING] {
                guard.received(head(kind)).unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_all_end_at_their_deadline_are_no_flood() {
        let mut guard = FloodGuard::new();
        for _ in 0..20_000 {
            for kind in [kind::HEADERS, kind::DATA, kind::RST_STREAM] {
                guard.received(head(kind)).unwrap();
            }
            advance(Duration::from_millis(1)).await;
        }
    }
}
