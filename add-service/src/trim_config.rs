//! The file with the policy of calls to trim instances: read at the start, and again when it changes and
//! on SIGHUP. A file that cannot be used leaves the policy as it is.

use std::{fs::File, io::Read as _, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use bootstrap::files::FileVersion;
use discovery::{Channel, config::ServiceConfig};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::timeout,
};
use tracing::{error, info, warn};

/// Interval between two checks of the file. A check is one system call.
const INTERVAL: Duration = Duration::from_secs(1);
/// The part of a file that is read: more than a service config may have.
const MAX_SIZE: u64 = (1 << 20) + 1;

/// The file. See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct TrimConfig {
    path: Arc<PathBuf>,
    /// The version of which the content is known; older than any read.
    seen: Option<FileVersion>,
}

impl TrimConfig {
    pub(crate) fn new(path: PathBuf) -> Self {
        let seen = FileVersion::of(&path);
        Self {
            path: Arc::new(path),
            seen,
        }
    }

    /// Reads the file, and logs the parts of it that have no effect.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or with line, column and field if it is not a service config.
    pub(crate) fn read(&self) -> anyhow::Result<ServiceConfig> {
        let path = self.path.display();
        let context = || format!("cannot use the trim config {path}");
        let mut text = String::new();
        File::open(&*self.path)
            .and_then(|file| file.take(MAX_SIZE).read_to_string(&mut text))
            .with_context(context)?;
        let config = ServiceConfig::parse(&text).with_context(context)?;
        for warning in config.warnings() {
            warn!("trim config {path}: {warning}");
        }
        Ok(config)
    }

    /// Applies the file to the channel when it changes, and at each request in `asked`, which is answered
    /// afterwards. It ends when the sender of requests is dropped.
    pub(crate) async fn follow(
        mut self,
        channel: Channel,
        mut asked: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        loop {
            // Used or dropped by the end of this round: both end the wait for it.
            let done = match timeout(INTERVAL, asked.recv()).await {
                Ok(Some(done)) => Some(done),
                Ok(None) => return,
                Err(_) => None,
            };
            let asked = done.is_some();
            let file = self.clone();
            // The version is that before the read: a change meanwhile is seen by the next check.
            let look = spawn_blocking(move || {
                let version = FileVersion::of(&file.path);
                (asked || version != file.seen).then(|| (version, file.read()))
            });
            let Ok(Some((version, config))) = look.await else {
                continue;
            };
            self.seen = version;
            let applied = config.and_then(|config| {
                channel
                    .set_service_config(config)
                    .with_context(|| format!("cannot use the trim config {}", self.path.display()))
            });
            match applied {
                Ok(()) => info!("trim config {} applied", self.path.display()),
                Err(error) => error!("the policy stays as it is: {error:#}"),
            }
            if let Some(done) = done {
                // An error means that the service ends.
                let _ended = done.send(());
            }
        }
    }
}
