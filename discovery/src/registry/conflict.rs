//! The pause after registrations that were lost soon after they were made.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::sleep;

use crate::{backoff::Backoff, registry::RegistryError};

/// A registration lost before this time was lost quickly.
const SETTLED: Duration = Duration::from_secs(60);

/// The waits before a quick loss is reported. Without them, two processes with one ID would
/// overwrite each other ten times a second.
const QUICK_LOSS: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// Counts the quick losses in a row.
#[derive(Default)]
pub(super) struct Conflicts {
    quick_losses: AtomicU32,
}

impl Conflicts {
    /// Waits after a loss, longer for each quick one in a row. `lasted` is the time since the
    /// registration.
    pub(super) async fn pause(&self, lost: &RegistryError, lasted: Duration) {
        if matches!(lost, RegistryError::Unreachable { .. }) {
            // An unreachable registry is not a conflicting registration: retry at once.
            return;
        }
        if lasted >= SETTLED {
            self.quick_losses.store(0, Relaxed);
            return;
        }
        let before = self.quick_losses.fetch_add(1, Relaxed);
        if before > 0 {
            sleep(QUICK_LOSS.after(before, &mut fastrand::Rng::new())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn pause(conflicts: &Conflicts, lost: RegistryError, lasted: Duration) -> Duration {
        let begun = Instant::now();
        conflicts.pause(&lost, lasted).await;
        begun.elapsed()
    }

    fn overwritten() -> RegistryError {
        RegistryError::Overwritten {
            registry: "consul".to_owned(),
            id: "a".to_owned(),
            found: "b".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn quick_losses_wait_longer_and_longer() {
        let conflicts = Conflicts::default();
        let quick = Duration::from_secs(1);
        assert_eq!(
            pause(&conflicts, overwritten(), quick).await,
            Duration::ZERO
        );
        assert!(pause(&conflicts, overwritten(), quick).await > Duration::ZERO);
        for _ in 0..20 {
            pause(&conflicts, overwritten(), quick).await;
        }
        assert!(pause(&conflicts, overwritten(), quick).await > Duration::from_secs(10));
        // One that lasted ends the series.
        assert_eq!(
            pause(&conflicts, overwritten(), SETTLED).await,
            Duration::ZERO
        );
        assert_eq!(
            pause(&conflicts, overwritten(), quick).await,
            Duration::ZERO
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_agent_is_not_a_conflict() {
        let conflicts = Conflicts::default();
        for _ in 0..3 {
            let unreachable = RegistryError::Unreachable {
                registry: "consul".to_owned(),
                action: "keep a".to_owned(),
                source: "refused".into(),
            };
            let waited = pause(&conflicts, unreachable, Duration::ZERO).await;
            assert_eq!(waited, Duration::ZERO);
        }
    }
}
