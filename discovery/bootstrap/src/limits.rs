//! The limits of what clients may take of a server.

use std::{num::NonZeroU32, time::Duration};

/// Limits of what clients may take of a server. Each listener applies them for itself.
///
/// ```
/// use std::num::NonZeroU32;
/// use bootstrap::Limits;
///
/// let limits = Limits::default().with_max_streams(NonZeroU32::new(100));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    pub(crate) max_connections: Option<NonZeroU32>,
    pub(crate) max_connections_per_peer: Option<NonZeroU32>,
    pub(crate) max_streams: NonZeroU32,
    pub(crate) memory: u32,
    pub(crate) begin: Duration,
    pub(crate) receive: Duration,
}

/// As Go's servers and nginx, in order of magnitude. RFC 9113 (section 5.1.2) advises at least 100.
const MAX_STREAMS: NonZeroU32 = NonZeroU32::new(256).unwrap();

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_connections_per_peer: None,
            max_streams: MAX_STREAMS,
            memory: 16 << 20,
            begin: Duration::from_secs(10),
            receive: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Open connections. At the limit, a connection whose client has not begun is closed
    /// for a new one; where there is none, new connections wait until one closes.
    ///
    /// `None`, the default: three quarters of the process's limit of open files (`ulimit -n`),
    /// divided by the number of listeners, at most 16384.
    #[must_use]
    pub fn with_max_connections(mut self, max: Option<NonZeroU32>) -> Self {
        self.max_connections = max;
        self
    }

    /// Open connections of one peer: an IPv4 address, or a network of IPv6 (the first 64 bits of the
    /// address). At the limit, one of the peer's own connections whose client has not begun is closed
    /// for a new one; where there is none, new ones are closed at once.
    ///
    /// `None`, the default: three quarters of the connections in all, so that one peer, which may be
    /// a proxy, does not shut out all others.
    #[must_use]
    pub fn with_max_connections_per_peer(mut self, max: Option<NonZeroU32>) -> Self {
        self.max_connections_per_peer = max;
        self
    }

    /// Concurrent requests of one HTTP/2 connection (`SETTINGS_MAX_CONCURRENT_STREAMS`). More are
    /// refused, and a client that goes on is disconnected. `None`, the default: 256.
    #[must_use]
    pub fn with_max_streams(mut self, max: Option<NonZeroU32>) -> Self {
        self.max_streams = max.unwrap_or(MAX_STREAMS);
        self
    }

    /// Memory for the large requests (over 32 KiB) that one HTTP/2 connection has open, in bytes.
    /// Further ones wait for their turn. Default: 16 MiB.
    ///
    /// Besides, each stream may take the 64 KiB of its flow-control window and about 10 KiB of
    /// state: with 256 streams, at most 64 MiB per connection in all.
    #[must_use]
    pub fn with_memory(mut self, bytes: u32) -> Self {
        self.memory = bytes;
        self
    }

    /// Time for a client to begin: with HTTP/2's preface and settings, or a byte of HTTP/1. Default:
    /// 10 s.
    #[must_use]
    pub fn with_begin_timeout(mut self, limit: Duration) -> Self {
        self.begin = limit;
        self
    }

    /// Time for the headers of a request, for each HTTP/2 frame and for each request message of gRPC
    /// to arrive. Default: 30 s.
    #[must_use]
    pub fn with_receive_timeout(mut self, limit: Duration) -> Self {
        self.receive = limit;
        self
    }
}
