//! The watch of one service's folder.

use std::{io, path::PathBuf, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use super::{files, folder::Folder, notify::Changes};
use crate::{
    future::BoxFuture,
    registry::{Listing, Query, RegistryError, Source, Update},
};

/// The least time between two reads. A burst of events is one read.
const INTERVAL: Duration = Duration::from_millis(5);
/// Reading takes at most one part in this many of the time.
const SHARE: u32 = 4;

pub(super) struct FolderSource {
    registry: String,
    folder: Folder,
    query: Query,
    changes: Option<Changes>,
    /// The earliest time of the next read.
    next: Instant,
    /// True if the folder has been read since the last failure.
    following: bool,
}

impl FolderSource {
    pub(super) fn new(registry: &str, folder: Folder, query: Query) -> Self {
        Self {
            registry: registry.to_owned(),
            folder,
            query,
            changes: None,
            next: Instant::now(),
            following: false,
        }
    }

    async fn read(&mut self) -> io::Result<Listing> {
        if let Some(changes) = &mut self.changes
            && self.following
        {
            changes.next().await;
        }
        sleep_until(self.next).await;
        let path = self.create().await?;
        self.changes
            .get_or_insert_with(|| Changes::new(&path))
            .follow(&path);
        let begun = Instant::now();
        let service = self.query.service.clone();
        let listing = blocking(move || files::list(&path, &service)).await?;
        self.next = Instant::now() + INTERVAL.max(begun.elapsed() * SHARE);
        Ok(self.query.select(listing))
    }

    /// Creates the folder, so that it can be followed before the first instance registers.
    async fn create(&self) -> io::Result<PathBuf> {
        let (folder, service) = (self.folder.clone(), self.query.service.clone());
        blocking(move || folder.create(&service)).await
    }
}

impl Source for FolderSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
        Box::pin(async {
            let read = self.read().await;
            self.following = read.is_ok();
            let action = || format!("watch {}", self.query.service);
            read.map(Update::from)
                .map_err(|error| failed(&self.registry, action(), error))
        })
    }
}

/// Runs a call of the file system on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(call).await.map_err(io::Error::other)?
}

/// The error of a call of the file system.
pub(super) fn failed(registry: &str, action: String, error: io::Error) -> RegistryError {
    let registry = registry.to_owned();
    if error.kind() == io::ErrorKind::PermissionDenied {
        RegistryError::Denied {
            registry,
            action,
            reason: error.to_string(),
        }
    } else {
        RegistryError::Unreachable {
            registry,
            action,
            source: error.into(),
        }
    }
}
