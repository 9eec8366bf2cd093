//! The settings of the ZooKeeper registry: defaults and the URL.

use std::{fmt, time::Duration};

use super::{layout::Layout, path, protocol};
use crate::registry::{RegistryError, RegistryUrl};

/// ZooKeeper's port, and its usual port with TLS.
const PORT: u16 = 2181;

/// The settings of a URL, for messages.
const SETTINGS: [&str; 3] = ["layout", "acl", "session_timeout"];

/// The servers, credentials and limits of a ZooKeeper.
///
/// ```
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// use discovery::registry::zookeeper::{Config, Layout, ZooKeeper};
///
/// let config = Config::new(["10.0.0.1:2181", "10.0.0.2:2181"]).with_layout(Layout::GoKit);
/// let zookeeper = ZooKeeper::new(&config)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// The servers as `HOST:PORT`. Default: `localhost:2181`.
    pub servers: Vec<String>,
    /// The node above those of the services. Default: `/services`, as Spring Cloud's.
    pub base_path: String,
    /// The form of the services' nodes. Default: [`Layout::Curator`].
    pub layout: Layout,
    /// `USER:PASSWORD` of the digest authentication. Default: none.
    pub credentials: Option<String>,
    /// The access rights of the nodes that a registration creates. Default: [`Access::Open`], and
    /// [`Access::Creator`] with credentials.
    pub access: Option<Access>,
    /// The time after which ZooKeeper removes the instance of a process that was killed, unless the
    /// registration has a TTL. Default: 10 s. The server bounds it to 2 to 20 of its ticks, which are
    /// 4 s to 40 s unless it is configured otherwise.
    ///
    /// A server that does not answer for two thirds of it is replaced by another.
    pub session_timeout: Duration,
}
