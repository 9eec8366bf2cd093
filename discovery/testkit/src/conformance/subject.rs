//! A registry under test: its server, and what only this registry knows.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use discovery::{
    Instance,
    registry::{Check, Registry},
};

use super::{Control, Promises};

/// A registry under test and its running server.
///
/// # Errors
///
/// Every call fails if the server or the registry refuses it. An error fails the case.
#[allow(async_fn_in_trait, reason = "the suite runs in one task")]
#[allow(
    clippy::missing_errors_doc,
    reason = "the same for all calls, see above"
)]
#[allow(clippy::must_use_candidate, reason = "the suite calls them")]
pub trait Subject: Sized + 'static {
    /// The registry's name.
    const NAME: &'static str;

    /// False for a registry that only lists instances, such as DNS. [`write`](Self::write) then stands
    /// for the registration.
    const REGISTERS: bool = true;

    /// False for a registry without a server, such as a folder. Failures of a server do not apply then, and
    /// [`Control::restart_wiped`] makes the data anew while the registry is in use.
    const HAS_SERVER: bool = true;

    /// Its server.
    type Server: Control;

    /// Starts a server that keeps its data across a restart, if it can. `None` if it is not on this
    /// machine, which has been said.
    async fn start() -> Result<Option<Self>>;

    /// The running server.
    fn server(&mut self) -> &mut Self::Server;

    /// The bounds, features, and cases that do not apply.
    fn promises() -> Promises;

    /// The server's version, as it says itself.
    async fn version(&self) -> Result<String>;

    /// The registry at the server. Each call opens a new one.
    fn open(&self) -> Result<Arc<dyn Registry>>;

    /// Arguments of `trim-service` for this registry: the URL, and the check with its interval.
    fn service_flags(&self) -> Vec<String>;

    /// The check of the suite's own registrations.
    fn check(&self) -> Check {
        Check::ttl(Duration::from_secs(10))
    }

    /// The check of 1 000 registrations at a time. Default: the same.
    fn check_of_many(&self) -> Check {
        self.check()
    }

    /// An instance as this registry can hold it. Default: all fields.
    fn fitting(&self, instance: Instance) -> Instance {
        instance
    }

    /// Makes `instances` the only ones of a service, where [`REGISTERS`](Self::REGISTERS) is false.
    async fn write(&mut self, service: &str, instances: &[Instance]) -> Result<()> {
        let _ = (service, instances);
        bail!("{} registers by itself", Self::NAME)
    }

    /// Adds entries to a service that are not instances, not through the registry under test. Returns
    /// how many.
    async fn write_malformed(&mut self, service: &str) -> Result<usize>;

    /// Starts a server that requires credentials. `None` as for [`start`](Self::start).
    async fn start_secured() -> Result<Option<(Self, Credentials)>> {
        bail!("{} has no credentials", Self::NAME)
    }
}

/// The registry at a server that requires credentials, opened with different ones.
pub struct Credentials {
    /// With the right credentials.
    pub right: Arc<dyn Registry>,
    /// With wrong credentials, and with none, each with a name for messages.
    pub wrong: Vec<(&'static str, Arc<dyn Registry>)>,
    /// The secrets in all of these, which no message may show.
    pub secrets: Vec<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}
