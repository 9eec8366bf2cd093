//! A connection whose client has to say something soon after it connected.
//!
//! hyper limits the time for a request's headers from their first byte on. Before that byte it waits
//! for ever, and a client whose machine vanished would hold a file descriptor for ever.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Fails to read with [`io::ErrorKind::TimedOut`] when not one byte came in time.
#[derive(Debug)]
pub(super) struct FirstByte<S> {
    stream: S,
    /// Gone once there was a byte.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<S> FirstByte<S> {
    /// Must be called inside a tokio runtime.
    pub(super) fn within(limit: Duration, stream: S) -> Self {
        Self {
            stream,
            limit: Some(Box::pin(sleep(limit))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstByte<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(limit) = &mut self.limit {
            if read.is_pending() {
                return limit.as_mut().poll(cx).map(|()| {
                    Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the client connected and said nothing",
                    ))
                });
            }
            if buffer.filled().len() > before {
                self.limit = None;
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstByte<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
    async fn a_client_that_says_nothing_is_given_up() {
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
    async fn after_the_first_byte_silence_is_no_matter() {
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
