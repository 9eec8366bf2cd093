//! The driver that all watches share.
//!
//! A registry implements [`Source`]: the next whole set, or an error. [`WatchDriver`] does the rest:
//! it publishes a set only if it differs, keeps the last good set after an error, waits before the
//! next attempt, logs, and counts.
//!
//! ```text
//!                 set, unchanged
//!                  .---------.
//!                  v         |
//!   start -----> Following --'
//!                  |    ^
//!           error  |    | set, unchanged
//!                  v    |
//!                Failing: waits, then asks the source again <--.
//!                  `--------------- error: waits longer -------'
//! ```

mod last_good;

use std::time::Duration;

use tokio::{runtime::Handle, task::AbortHandle, time::sleep};

use self::last_good::LastGood;
use super::{InstanceSet, Instancer, Listing, RegistryError};
use crate::{backoff::Backoff, future::BoxFuture, watch};

/// The waits after failures. The first is short because most failures are a connection that broke
/// while the registry is up again. The maximum is low because a refused connection costs little, and
/// many watches spread over 5 s do not overload a registry that has just started.
const FAILURE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// One registry's view of one service, as a sequence of whole sets.
///
/// # Example
///
/// A source that fails once and then lists one instance:
///
/// ```
/// use discovery::{
///     BoxFuture, Instance,
///     registry::{Instancer, Listing, RegistryError, Source, Update, WatchDriver},
/// };
///
/// #[derive(Default)]
/// struct Flaky {
///     calls: u32,
/// }
///
/// impl Source for Flaky {
///     fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
///         Box::pin(async {
///             self.calls += 1;
///             match self.calls {
///                 1 => Err(RegistryError::Unreachable {
///                     registry: "flaky".to_owned(),
///                     action: "watch trim".to_owned(),
///                     source: "connection refused".into(),
///                 }),
///                 2 => Ok(Update::Listing(Instance::new("10.0.0.1", 8975).into_iter().collect())),
///                 // No further change.
///                 _ => std::future::pending().await,
///             }
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let driver = WatchDriver::start("flaky", "trim", Flaky::default())?;
/// let mut sets = driver.watch();
/// let set = sets.wait_for(|set| set.confirmed.is_some()).await?.clone();
/// assert_eq!(set.instances[0].host, "10.0.0.1");
/// # Ok(())
/// # }
/// ```
pub trait Source: Send + 'static {
    /// The next whole set. The first call, and the first after an error, returns the present set at
    /// once; it must not rely on what was known before the error. Later calls return when there is
    /// news, and in quiet times from time to time with [`Update::Unchanged`], so that
    /// [`InstanceSet::confirmed`] stays recent while the registry answers.
    ///
    /// The future is dropped only when the watch ends. The driver waits between an error and the next
    /// call; the source limits the rate of good answers itself.
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>>;
}

/// A good answer of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// The whole set.
    Listing(Listing),
    /// The registry has confirmed the last set.
    Unchanged,
}

impl From<Listing> for Update {
    fn from(listing: Listing) -> Self {
        Self::Listing(listing)
    }
}

/// A running watch. Dropping it ends the watch.
#[derive(Debug)]
pub struct WatchDriver {
    sets: watch::Receiver<InstanceSet>,
    task: AbortHandle,
}

impl WatchDriver {
    /// Starts to follow `source`. `registry` and `service` are the names for logs and metrics.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NoRuntime`] outside a tokio runtime.
    pub fn start(
        registry: &str,
        service: &str,
        source: impl Source,
    ) -> Result<Self, RegistryError> {
        let runtime = Handle::try_current().map_err(|_| RegistryError::NoRuntime {
            action: format!("watch {service}"),
        })?;
        let (last_good, sets) = LastGood::new(registry, service);
        let task = runtime.spawn(follow(source, last_good)).abort_handle();
        Ok(Self { sets, task })
    }
}

impl Instancer for WatchDriver {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.sets.clone()
    }
}

impl Drop for WatchDriver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut source: impl Source, mut last_good: LastGood) {
    let mut failures = 0;
    loop {
        match source.next().await {
            Ok(update) => {
                failures = 0;
                last_good.confirm(update);
            }
            Err(error) => {
                failures = u32::saturating_add(failures, 1);
                let wait = FAILURE_BACKOFF.after(failures, &mut fastrand::Rng::new());
                let wait = wait.max(error.retry_after().unwrap_or_default());
                last_good.failed(error, failures);
                sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
