//! Follows files and applies them when they change.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use super::validity::Expiry;
use crate::files::FileVersion;

/// Interval between two checks of the files. A check is one system call per file.
const INTERVAL: Duration = Duration::from_millis(500);

type Versions = Vec<Option<FileVersion>>;

/// Some files that are used together.
pub(super) struct Rotation {
    /// For log lines.
    what: &'static str,
    files: Arc<Vec<PathBuf>>,
    /// Older than any read of the files.
    seen: Versions,
}

impl Rotation {
    /// Must be called before the files are read, so that later changes are seen.
    pub(super) fn new(what: &'static str, files: Vec<PathBuf>) -> Self {
        Self {
            what,
            seen: versions(&files),
            files: Arc::new(files),
        }
    }

    /// Calls `apply` when the files have changed and change no further. Never returns. Files that cannot
    /// be used are logged once, and the ones before them stay in use.
    pub(super) async fn follow(
        self,
        mut expiry: Expiry,
        apply: impl Fn() -> anyhow::Result<Expiry> + Send + Sync + 'static,
    ) {
        let Self { what, files, seen } = self;
        expiry.log();
        let apply = Arc::new(apply);
        let mut change = Change::new(seen);
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Some(warning) = expiry.warning(SystemTime::now()) {
                warn!("{warning}");
            }
            let looked_at = Arc::clone(&files);
            let Ok(now) = spawn_blocking(move || versions(&looked_at)).await else {
                continue;
            };
            if !change.is_complete(now) {
                continue;
            }
            let apply = Arc::clone(&apply);
            let Ok(applied) = spawn_blocking(move || apply()).await else {
                continue;
            };
            match applied {
                Ok(new) => {
                    info!("{what} has changed: the new files are used for new connections");
                    expiry = new;
                    expiry.log();
                }
                Err(error) => {
                    error!("{what} has changed and cannot be used: the old one stays: {error:#}");
                }
            }
        }
    }
}

fn versions(files: &[PathBuf]) -> Versions {
    files.iter().map(|file| FileVersion::of(file)).collect()
}

/// A change of several files, which are written one after the other.
struct Change<V> {
    applied: V,
    last: V,
}

impl<V: Clone + PartialEq> Change<V> {
    fn new(seen: V) -> Self {
        Self {
            last: seen.clone(),
            applied: seen,
        }
    }

    /// True once for each change, when two checks in a row have seen the same.
    fn is_complete(&mut self, now: V) -> bool {
        let rests = now == self.last;
        self.last = now;
        if !rests || self.last == self.applied {
            return false;
        }
        self.applied = self.last.clone();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_applied_once_when_the_files_rest() {
        let mut change = Change::new([1, 1]);
        for (now, complete) in [
            ([1, 1], false),
            ([2, 1], false),
            ([2, 2], false),
            ([2, 2], true),
            ([2, 2], false),
            ([1, 1], false),
            ([1, 1], true),
        ] {
            assert_eq!(change.is_complete(now), complete, "{now:?}");
        }
    }
}
