//! A time limit for the first byte of a connection.
//!
//! hyper limits the time for a request's headers from their first byte on. Before that byte it waits
//! without limit, and a client whose machine vanished would hold a file descriptor forever.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use crate::guarded::{Guard, Guarded};

/// Fails the first read with [`io::ErrorKind::TimedOut`] if no byte arrives within the limit.
#[derive(Debug)]
pub(crate) struct FirstByte {
    /// `None` after the first byte.
    limit: Option<Pin<Box<Sleep>>>,
}

impl FirstByte {
    /// Guards a connection. Must be called inside a tokio runtime.
    pub(crate) fn within<S>(limit: Duration, stream: S) -> Guarded<S, Self> {
        let limit = Some(Box::pin(sleep(limit)));
        Guarded::new(stream, Self { limit })
    }
}

impl Guard for FirstByte {
    type End = io::Error;

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(limit) = &mut self.limit else {
            return Poll::Pending;
        };
        limit.as_mut().poll(cx).map(|()| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "the client connected and sent no byte",
            )
        })
    }

    fn received(&mut self) {
        self.limit = None;
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
    async fn a_client_that_sends_nothing_is_closed() {
        let (_client, server) = duplex(64);
        let begun = Instant::now();
        let error = FirstByte::within(LIMIT, server)
            .read_u8()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_first_byte_there_is_no_limit() {
        let (mut client, server) = duplex(64);
        let mut server = FirstByte::within(LIMIT, server);
        client.write_u8(1).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), 1);
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
