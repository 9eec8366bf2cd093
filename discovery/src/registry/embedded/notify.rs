//! Ends a wait when a folder may have changed.
//!
//! Events are only a hint: the reader reads the whole folder, so their contents do not matter, and neither
//! does an overflow of their queue.

use std::{path::Path, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use inotify::{EventStream, Inotify, WatchMask};
use tokio::time::sleep;
use tracing::warn;

/// The time between two reads where events cannot be had.
const POLL: Duration = Duration::from_secs(1);
/// The time between two reads in quiet times where events can be had.
const QUIET: Duration = Duration::from_secs(10);

/// Writing is complete, a lock was released, or a name has changed. Reading is not among them: the reader
/// would wake itself.
const EVENTS: WatchMask = WatchMask::CLOSE_WRITE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF);

/// File systems whose files other machines can change without an event here, and whose locks may not
/// reach them: NFS, SMB and CIFS, FUSE (sshfs, virtiofs), 9P, Ceph, AFS.
const NETWORK: [u64; 8] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
];

/// Room for the events of one read.
const BUFFER: usize = 4096;

/// Reports changes of one folder.
pub(super) struct Changes {
    /// `None` where events cannot be had.
    events: Option<EventStream<[u8; BUFFER]>>,
}

impl Changes {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(folder: &Path) -> Self {
        let shown = folder.display();
        if is_network(folder) {
            warn!(
                folder = %shown,
                "the folder is on a network file system: instances of other machines may be missing, and \
                 changes are seen after up to a second"
            );
            return Self { events: None };
        }
        let events = Inotify::init().and_then(|inotify| inotify.into_event_stream([0; BUFFER]));
        match events {
            Ok(events) => Self {
                events: Some(events),
            },
            Err(error) => {
                warn!(folder = %shown, "no events of the folder, reading it every second: {error}");
                Self { events: None }
            }
        }
    }

    /// Begins to report changes of the folder, before it is read. Repeated calls cost little; they find a
    /// folder that has been replaced.
    pub(super) fn follow(&mut self, folder: &Path) {
        let Some(events) = &self.events else {
            return;
        };
        if let Err(error) = events.watches().add(folder, EVENTS) {
            warn!(
                folder = %folder.display(),
                "no events of the folder, reading it every second: {error}"
            );
            self.events = None;
        }
    }

    /// Ends with the next event, or when it is time to read the folder anyway.
    pub(super) async fn next(&mut self) {
        match &mut self.events {
            None => sleep(POLL).await,
            Some(events) => tokio::select! {
                _ = events.next() => {
                    // The events that are there are one change.
                    while events.next().now_or_never().is_some() {}
                }
                () = sleep(QUIET) => {}
            },
        }
    }
}

fn is_network(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|fs| {
        let kind = u64::try_from(fs.f_type).unwrap_or_default() & 0xffff_ffff;
        NETWORK.contains(&kind)
    })
}
