//! Drives a connection in the background and tells when it takes no more calls.

use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

use super::keep_alive::KeepAlive;
use crate::BoxError;

/// Ends when no new call can go through the connection, with the reason if it broke. Calls in
/// flight go on without it.
pub(super) struct Driver<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    /// `None` when nothing is left to drive.
    pub(super) connection: Option<Connection<S, Bytes>>,
    /// Asks whether another call could be begun; let go of with the transport, for the connection
    /// closes with the last one that could begin a call.
    pub(super) probe: Option<SendRequest<Bytes>>,
    /// Closed when the transport was dropped.
    pub(super) open: oneshot::Receiver<Infallible>,
    pub(super) closed: Arc<AtomicBool>,
    pub(super) keep_alive: Option<KeepAlive>,
}

impl<S> Future for Driver<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.probe.is_some() && Pin::new(&mut this.open).poll(cx).is_ready() {
            this.probe = None;
        }
        let Some(connection) = &mut this.connection else {
            return Poll::Ready(Ok(()));
        };
        if let Poll::Ready(ended) = Pin::new(connection).poll(cx) {
            return this.end(ended.map_err(BoxError::from));
        }
        if let Some(keep_alive) = &mut this.keep_alive
            && let Poll::Ready(reason) = keep_alive.poll_dead(cx)
        {
            // The calls in flight break with the connection.
            return this.end(Err(reason.into()));
        }
        let Some(probe) = &mut this.probe else {
            return Poll::Pending;
        };
        let Poll::Ready(Err(error)) = probe.poll_ready(cx) else {
            return Poll::Pending;
        };
        // The server is going away, or the connection has had all the calls it can number.
        this.probe = None;
        if let Some(connection) = mem::take(&mut this.connection) {
            tokio::spawn(async move {
                // The calls in flight learn of an error themselves.
                let _ended = connection.await;
            });
        }
        let orderly = error.reason() == Some(h2::Reason::NO_ERROR);
        this.end(if orderly { Ok(()) } else { Err(error.into()) })
    }
}

impl<S> Driver<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn end(&mut self, ended: Result<(), BoxError>) -> Poll<Result<(), BoxError>> {
        self.closed.store(true, Ordering::Relaxed);
        self.connection = None;
        Poll::Ready(ended)
    }
}
