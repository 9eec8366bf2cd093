//! HTTP/1.1 to one instance: a pool of connections behind one transport, on hyper's `client::conn::http1`.
//!
//! A request takes the connection that was idle for the shortest time, or makes another one up to the
//! pool's bound; above it, it waits for its turn. A connection returns to the pool when the response was
//! read to its end.
//!
//! A server may close an idle connection at any time (RFC 9112, section 9.5), so that is not a failure. A
//! request that meets it unsent goes over another connection, and so does one that may be executed twice.
//! When the last connection that has carried requests is closed, another is made at once: that shows if
//! the instance is still there. If it cannot be made, the transport ends.

mod lease;
mod link;
mod pool;
mod transport;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use self::pool::Pool;
pub(super) use self::{link::Link, transport::Http1Transport};
use super::{ConnectError, Connection, origin::Origin};

/// The bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Maximum number of connections.
    pub(crate) connections: NonZeroUsize,
    /// Time after which an unused connection is closed.
    pub(crate) idle: Duration,
}

/// Makes another connection to the same instance.
pub(crate) type Dial =
    Box<dyn Fn() -> BoxFuture<'static, Result<Link, ConnectError>> + Send + Sync>;

/// A transport that begins with this connection.
pub(crate) fn pooled(first: Link, dial: Dial, origin: Origin, bounds: Bounds) -> Connection {
    let (open, dropped) = oneshot::channel();
    let pool = Pool::new(dial, bounds);
    pool.add(first);
    let transport = Http1Transport::new(Arc::clone(&pool), origin, open);
    Connection::new(transport, pool.drive(dropped))
}
