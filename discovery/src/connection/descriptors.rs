//! The file descriptors that connections leave to other uses: listeners, the registry, files.
//!
//! The kernel gives each new descriptor the lowest free number. A socket whose number is in the last
//! part below the process's limit (`ulimit -n`) is closed again, so that connections never take the
//! last descriptors, whatever else the process has opened. Where the system has no such limit, nothing
//! is kept.

use std::{
    error::Error,
    io, iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::TcpSocket;

/// Connections of a factory for which fewer descriptors are kept, so that a process whose clients have
/// taken most of them can still call other services.
const FIRST: usize = 32;
/// The part of the limit that the first connections leave.
const KEPT_BY_FIRST: u64 = 16;
/// The part of the limit that further connections leave.
const KEPT: u64 = 4;
/// Maximum number of descriptors that are kept.
const MAX_KEPT: u64 = 4_096;

/// Counts the connections of a factory. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(in crate::connection) struct Descriptors(Arc<AtomicUsize>);

impl Descriptors {
    /// Counts a connection over this socket, until the result is dropped.
    ///
    /// # Errors
    ///
    /// If its descriptor is one of those kept for other uses.
    pub(in crate::connection) fn take(&self, socket: &TcpSocket) -> io::Result<Taken> {
        let taken = Taken::new(&self.0);
        if let Some((number, limit)) = number_and_limit(socket)
            && number >= limit - kept(limit, taken.others)
        {
            let kept = kept(limit, taken.others);
            return Err(io::Error::other(Shortage { limit, kept }));
        }
        Ok(taken)
    }
}

/// The number of descriptors that are kept, beside so many connections.
fn kept(limit: u64, connections: usize) -> u64 {
    let part = if connections < FIRST {
        KEPT_BY_FIRST
    } else {
        KEPT
    };
    (limit / part).min(MAX_KEPT)
}

#[cfg(unix)]
fn number_and_limit(socket: &TcpSocket) -> Option<(u64, u64)> {
    use std::os::fd::AsRawFd as _;

    use nix::sys::resource::{Resource, getrlimit};

    let number = u64::try_from(socket.as_raw_fd()).ok()?;
    let (soft, _hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some((number, soft))
}

#[cfg(not(unix))]
fn number_and_limit(_: &TcpSocket) -> Option<(u64, u64)> {
    None
}

/// A connection that is counted.
#[derive(Debug)]
pub(in crate::connection) struct Taken {
    count: Arc<AtomicUsize>,
    /// Number of connections before it.
    others: usize,
}

impl Taken {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        Self {
            others: count.fetch_add(1, Ordering::Relaxed),
            count: Arc::clone(count),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No file descriptor may be used for a connection.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of open files (ulimit -n) is {limit}, of which {kept} are kept for other uses than \
     connections to instances"
)]
struct Shortage {
    limit: u64,
    kept: u64,
}

/// True if the error or one of its sources is a lack of file descriptors.
pub(in crate::connection) fn is_shortage(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |error| (*error).source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| {
            let is_kept = matches!(error.get_ref(), Some(error) if error.is::<Shortage>());
            is_kept || error.raw_os_error().is_some_and(is_shortage_code)
        })
}

#[cfg(unix)]
fn is_shortage_code(code: i32) -> bool {
    use nix::errno::Errno;

    matches!(Errno::from_raw(code), Errno::EMFILE | Errno::ENFILE)
}

#[cfg(not(unix))]
fn is_shortage_code(_: i32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connections_leave_fewer_descriptors_than_further_ones() {
        for (limit, connections, expected) in [
            (1_024, 0, 64),
            (1_024, 31, 64),
            (1_024, 32, 256),
            (100, 0, 6),
            (20_000, 1_000, 4_096),
            (0, 0, 0),
            (u64::MAX, 32, 4_096),
        ] {
            assert_eq!(kept(limit, connections), expected, "{limit}, {connections}");
        }
    }

    #[test]
    fn a_lack_of_descriptors_is_known_through_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);

        let kept = io::Error::other(Shortage { limit: 9, kept: 1 });
        assert!(is_shortage(&Outer(kept)));
        for (code, expected) in [(23, true), (24, true), (111, false)] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(is_shortage(&error), expected, "{code}");
            let error = Outer(io::Error::from_raw_os_error(code));
            assert_eq!(is_shortage(&error), expected, "{code}");
        }
    }

    #[tokio::test]
    async fn a_connection_is_counted_until_it_is_dropped() {
        let descriptors = Descriptors::default();
        let socket = TcpSocket::new_v4().unwrap();
        let first = descriptors.take(&socket).unwrap();
        assert_eq!(descriptors.take(&socket).unwrap().others, 1);
        drop(first);
        assert_eq!(descriptors.take(&socket).unwrap().others, 0);
    }
}
