//! A time limit for the beginning of a connection: HTTP/2's preface, or the first byte of HTTP/1.
//!
//! hyper limits the time for an HTTP/1 request's headers from their first byte on, and pings a silent
//! HTTP/2 connection from the preface on. Before that it waits without limit, and a client whose
//! machine vanished would hold a file descriptor forever.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use crate::guarded::{Guard, Guarded};

/// The preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Fails a read with [`io::ErrorKind::TimedOut`] if a connection has not begun within the limit: with
/// the whole preface of HTTP/2, or with a byte that is not part of it.
#[derive(Debug)]
pub(crate) struct PrefaceLimit {
    /// Bytes of the preface that have arrived.
    arrived: usize,
    /// `None` once the connection has begun.
    limit: Option<Pin<Box<Sleep>>>,
}

impl PrefaceLimit {
    /// Guards a connection. Must be called inside a tokio runtime.
    pub(crate) fn within<S>(limit: Duration, stream: S) -> Guarded<S, Self> {
        let limit = Some(Box::pin(sleep(limit)));
        Guarded::new(stream, Self { arrived: 0, limit })
    }
}

impl Guard for PrefaceLimit {
    type End = io::Error;

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(limit) = &mut self.limit else {
            return Poll::Pending;
        };
        limit.as_mut().poll(cx).map(|()| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "the client connected and did not begin HTTP",
            )
        })
    }

    fn received(&mut self, bytes: &[u8]) {
        if self.limit.is_none() {
            return;
        }
        let expected = &PREFACE[self.arrived..];
        let part = bytes.len().min(expected.len());
        if bytes[..part] == expected[..part] && part < expected.len() {
            self.arrived += part;
        } else {
            self.limit = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::Instant,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_begin_is_closed() {
        for beginning in [&b""[..], b"P", b"PRI ", &PREFACE[..23]] {
            let (mut client, server) = duplex(64);
            let begun = Instant::now();
            let mut server = PrefaceLimit::within(LIMIT, server);
            let send = async {
                for byte in beginning {
                    client.write_u8(*byte).await.unwrap();
                    sleep(LIMIT / 100).await;
                }
            };
            let mut received = Vec::new();
            let (read, ()) = tokio::join!(server.read_to_end(&mut received), send);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(begun.elapsed(), LIMIT, "{beginning:?}");
            assert_eq!(received, beginning);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn once_it_has_begun_there_is_no_limit() {
        for beginning in [PREFACE, b"G", b"PRI * HTTP/1.1\r\n", b"\0"] {
            let (mut client, server) = duplex(64);
            let mut server = PrefaceLimit::within(LIMIT, server);
            for byte in beginning {
                client.write_u8(*byte).await.unwrap();
                assert_eq!(server.read_u8().await.unwrap(), *byte);
            }
            let (late, read) = tokio::join!(
                async {
                    sleep(LIMIT * 5).await;
                    client.write_u8(2).await
                },
                server.read_u8()
            );
            late.unwrap();
            assert_eq!(read.unwrap(), 2);
        }
    }
}
