//! Failing a server on demand.

use anyhow::Result;

use crate::{
    Consul,
    registries::{Launch, Server},
};

/// A server that the suite ends, stops and starts again. Where a registry
/// [has none](super::Subject::HAS_SERVER), only [`restart_wiped`](Self::restart_wiped) is called.
///
/// # Errors
///
/// Every call fails if the server is not in the state that the call needs, or does not get into the
/// wanted one.
#[allow(async_fn_in_trait, reason = "the suite runs in one task")]
#[allow(
    clippy::missing_errors_doc,
    reason = "the same for all calls, see above"
)]
pub trait Control {
    /// Ends it by SIGKILL.
    async fn kill(&mut self) -> Result<()>;

    /// Starts it again with its data, and returns when it answers.
    async fn restart(&mut self) -> Result<()>;

    /// Starts it again without its data, and returns when it answers.
    async fn restart_wiped(&mut self) -> Result<()>;

    /// Stops it by SIGSTOP.
    fn pause(&self) -> Result<()>;

    /// Continues it.
    fn resume(&self) -> Result<()>;
}

impl<L: Launch> Control for Server<L> {
    async fn kill(&mut self) -> Result<()> {
        Server::kill(self).await
    }

    async fn restart(&mut self) -> Result<()> {
        Server::restart(self).await
    }

    async fn restart_wiped(&mut self) -> Result<()> {
        Server::restart_wiped(self).await
    }

    fn pause(&self) -> Result<()> {
        Server::pause(self)
    }

    fn resume(&self) -> Result<()> {
        Server::resume(self)
    }
}

impl Control for Consul {
    async fn kill(&mut self) -> Result<()> {
        Consul::kill(self).await
    }

    async fn restart(&mut self) -> Result<()> {
        Consul::restart(self).await
    }

    async fn restart_wiped(&mut self) -> Result<()> {
        Consul::restart_wiped(self).await
    }

    fn pause(&self) -> Result<()> {
        Consul::pause(self)
    }

    fn resume(&self) -> Result<()> {
        Consul::resume(self)
    }
}
