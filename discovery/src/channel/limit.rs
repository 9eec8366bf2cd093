//! The time that a call has: the caller's deadline, the channel's own setting, and which of them ends
//! the call.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::{deadline::Deadline, retry::RetryPolicy};

/// A server that keeps the same deadline may end the call this much earlier than this side: timers
/// have a resolution of a millisecond.
const TIMER_RESOLUTION: Duration = Duration::from_millis(2);

/// True at a deadline and after it. A server may have ended the call because of it.
pub(super) fn is_at(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| now + TIMER_RESOLUTION >= deadline)
}

/// The time limit of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// The caller's deadline. It holds for the whole response.
    caller: Option<Caller>,
    /// The channel's own limit. It holds up to the first message of the response.
    own: Option<Own>,
    /// The earlier of the two.
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Caller {
    at: Instant,
    /// The time left when the call began.
    given: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Own {
    /// The setting `retry_timeout`.
    Setting(Duration),
    /// The limit of a unary call for which no other is given.
    Default,
}

impl Own {
    fn time(self) -> Duration {
        match self {
            Self::Setting(time) => time,
            Self::Default => RetryPolicy::DEFAULT_TIMEOUT,
        }
    }
}

impl Limit {
    /// The limit of a unary call that begins at `now`.
    pub(super) fn unary(now: Instant, caller: Option<Deadline>, setting: Option<Duration>) -> Self {
        let default = caller.is_none().then_some(Own::Default);
        Self::new(now, caller, setting.map(Own::Setting).or(default))
    }

    /// The limit of a call whose request or response is a stream: the caller's deadline.
    pub(super) fn stream(now: Instant, caller: Option<Deadline>) -> Self {
        Self::new(now, caller, None)
    }

    fn new(now: Instant, caller: Option<Deadline>, own: Option<Own>) -> Self {
        let caller = caller.map(|deadline| {
            let at: Instant = deadline.instant().into();
            Caller {
                at,
                given: at.saturating_duration_since(now),
            }
        });
        let own_end = own.and_then(|own| now.checked_add(own.time()));
        Self {
            caller,
            own,
            deadline: caller
                .map(|caller| caller.at)
                .into_iter()
                .chain(own_end)
                .min(),
        }
    }

    /// The time by which the first message of the response must be there.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The caller's own deadline.
    pub(super) fn caller(&self) -> Option<Instant> {
        self.caller.map(|caller| caller.at)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|at| now >= at)
    }
}

impl fmt::Display for Limit {
    /// The time, and in brackets where it came from and what it was chosen over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.own.map(Own::time);
        match (self.caller, own) {
            (None, None) => f.write_str("any time"),
            (None, Some(own)) => match self.own {
                Some(Own::Default) => write!(f, "{own:?} (the default of retry_timeout)"),
                _ => write!(f, "{own:?} (retry_timeout)"),
            },
            (Some(Caller { given, .. }), None) => {
                write!(f, "{given:.1?} (the caller's deadline)")
            }
            (Some(Caller { given, .. }), Some(own)) if given < own => write!(
                f,
                "{given:.1?} (the caller's deadline; retry_timeout is {own:?})"
            ),
            (Some(Caller { given, .. }), Some(own)) => {
                write!(
                    f,
                    "{own:?} (retry_timeout {own:?}; the caller gave {given:.1?})"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_caller_and_setting_ends_a_unary_call_and_is_named() {
        let now = Instant::now();
        let caller = |ms| Some(Deadline::at((now + ms * MS).into_std()));
        for (caller, setting, end, text) in [
            (None, None, 500, "500ms (the default of retry_timeout)"),
            (None, Some(700), 700, "700ms (retry_timeout)"),
            (caller(250), None, 250, "250.0ms (the caller's deadline)"),
            (caller(5000), None, 5000, "5.0s (the caller's deadline)"),
            (
                caller(250),
                Some(500),
                250,
                "250.0ms (the caller's deadline; retry_timeout is 500ms)",
            ),
            (
                caller(5000),
                Some(500),
                500,
                "500ms (retry_timeout 500ms; the caller gave 5.0s)",
            ),
        ] {
            let limit = Limit::unary(now, caller, setting.map(|ms: u32| ms * MS));
            assert_eq!(limit.deadline(), Some(now + end * MS));
            assert_eq!(limit.to_string(), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_the_callers_deadline_or_none() {
        let now = Instant::now();
        let limit = Limit::stream(now, None);
        assert_eq!((limit.deadline(), limit.caller()), (None, None));
        assert_eq!(limit.to_string(), "any time");
        let at = now + 5000 * MS;
        let limit = Limit::stream(now, Some(Deadline::at(at.into_std())));
        assert_eq!((limit.deadline(), limit.caller()), (Some(at), Some(at)));
        assert_eq!(limit.to_string(), "5.0s (the caller's deadline)");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_in_the_past_is_over_at_once() {
        let past = Instant::now();
        tokio::time::advance(MS).await;
        let limit = Limit::unary(
            Instant::now(),
            Some(Deadline::at(past.into_std())),
            Some(MS),
        );
        assert!(limit.is_over(Instant::now()));
    }
}
