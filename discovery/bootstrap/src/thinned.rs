//! Log lines of one kind that may repeat without limit, such as those about each refused connection.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Minimum time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// The lines of one kind. The first is logged, then at most one each 10 s.
///
/// ```
/// use bootstrap::Thinned;
///
/// static REFUSED: Thinned = Thinned::new();
///
/// if let Some(suppressed) = REFUSED.line() {
///     tracing::warn!(suppressed, "connection refused");
/// }
/// ```
#[derive(Debug)]
pub struct Thinned(Mutex<State>);

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Thinned {
    /// No line has been logged yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            last: None,
            suppressed: 0,
        }))
    }

    /// The number of lines that were left out since the last one, if a line may be logged now.
    pub fn line(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { last, suppressed } = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            *suppressed += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(suppressed))
    }
}

impl Default for Thinned {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_each_interval_tells_how_many_were_left_out() {
        let lines = Thinned::new();
        assert_eq!(lines.line(), Some(0));
        for _ in 0..7 {
            assert_eq!(lines.line(), None);
        }
        tokio::time::advance(INTERVAL).await;
        assert_eq!(lines.line(), Some(7));
        assert_eq!(lines.line(), None);
        tokio::time::advance(INTERVAL * 3).await;
        assert_eq!(lines.line(), Some(1));
    }
}
