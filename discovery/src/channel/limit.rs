//! The time that a call has: the caller's deadline, the channel's own setting, and which of the two
//! is the one that ends it.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::deadline::Deadline;

/// The time limit of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// The caller's deadline. It holds for the whole response.
    caller: Option<Caller>,
    /// The setting `retry_timeout`; `None` for a streamed request, which it does not limit.
    setting: Option<Duration>,
    /// The earlier of the two. It holds up to the first message of the response.
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Caller {
    at: Instant,
    /// The time left when the call began.
    given: Duration,
}

impl Limit {
    /// The limit of a call that begins at `now`.
    pub(super) fn new(now: Instant, caller: Option<Deadline>, setting: Option<Duration>) -> Self {
        let caller = caller.map(|deadline| Caller {
            at: deadline.instant(),
            given: deadline.instant().saturating_duration_since(now),
        });
        let own = setting.and_then(|setting| now.checked_add(setting));
        Self {
            caller,
            setting,
            deadline: caller.map(|caller| caller.at).into_iter().chain(own).min(),
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
        match (self.caller, self.setting) {
            (None, None) => f.write_str("any time"),
            (None, Some(setting)) => write!(f, "{setting:?} (retry_timeout)"),
            (Some(Caller { given, .. }), None) => {
                write!(f, "{given:.1?} (the caller's deadline)")
            }
            (Some(Caller { given, .. }), Some(setting)) if given < setting => write!(
                f,
                "{given:.1?} (the caller's deadline; retry_timeout is {setting:?})"
            ),
            (Some(Caller { given, .. }), Some(setting)) => write!(
                f,
                "{setting:?} (retry_timeout {setting:?}; the caller gave {given:.1?})"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_caller_and_setting_ends_the_call_and_is_named() {
        let now = Instant::now();
        let caller = |ms| Some(Deadline::at(now + ms * MS));
        for (caller, setting, end, text) in [
            (None, None, None, "any time"),
            (None, Some(500), Some(500), "500ms (retry_timeout)"),
            (
                caller(250),
                None,
                Some(250),
                "250.0ms (the caller's deadline)",
            ),
            (
                caller(250),
                Some(500),
                Some(250),
                "250.0ms (the caller's deadline; retry_timeout is 500ms)",
            ),
            (
                caller(5000),
                Some(500),
                Some(500),
                "500ms (retry_timeout 500ms; the caller gave 5.0s)",
            ),
        ] {
            let limit = Limit::new(now, caller, setting.map(|ms: u32| ms * MS));
            assert_eq!(limit.deadline(), end.map(|ms: u32| now + ms * MS));
            assert_eq!(limit.to_string(), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_in_the_past_is_over_at_once() {
        let past = Instant::now();
        tokio::time::advance(MS).await;
        let limit = Limit::new(Instant::now(), Some(Deadline::at(past)), Some(MS));
        assert!(limit.is_over(Instant::now()));
    }
}
