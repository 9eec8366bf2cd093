//! One HTTP/1.1 connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use http::{Response, Version, header};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::Instant,
};
use tracing::debug;

use crate::{
    BoxError,
    connection::{ConnectError, RequestBody, descriptors::Taken},
    error::chain,
};

/// A connection that can take one request at a time.
pub(crate) struct Link {
    pub(super) sender: SendRequest<RequestBody>,
    /// The time since which it is unused.
    pub(super) since: Instant,
    /// True once it has carried a request.
    pub(super) is_used: bool,
    /// True if its end says nothing about the instance: it is unused, this side ends it, or the server has
    /// said that it would.
    expected: Arc<AtomicBool>,
    /// Completes with the connection's end; the pool takes it.
    ended: Option<oneshot::Receiver<()>>,
}

impl Link {
    /// Begins a connection on a byte stream. `taken` counts its file descriptor.
    pub(crate) async fn over<S>(stream: S, taken: Option<Taken>) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectError::Handshake(error.into()))?;
        let (end, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _taken = taken;
            if let Err(error) = connection.await {
                // A call that was under way has the error itself.
                debug!("HTTP/1 connection ended: {}", chain(&error));
            }
            // The pool may be gone.
            let _ended = end.send(());
        });
        Ok(Self {
            sender,
            since: Instant::now(),
            is_used: false,
            expected: Arc::new(AtomicBool::new(true)),
            ended: Some(ended),
        })
    }

    /// The end of the connection, and what tells later if it was expected.
    pub(super) fn end(&mut self) -> Option<(oneshot::Receiver<()>, Arc<AtomicBool>)> {
        let ended = self.ended.take()?;
        Some((ended, Arc::clone(&self.expected)))
    }

    /// Notes that the end of the connection says nothing about the instance.
    pub(super) fn expect_end(&self) {
        self.expected.store(true, Ordering::Relaxed);
    }

    /// Notes the head of a response: the server may end the connection after it.
    pub(super) fn note(&mut self, response: &Response<Incoming>) {
        self.is_used = true;
        let has_word = |word: &str| {
            let values = response.headers().get_all(header::CONNECTION).iter();
            let words = values.filter_map(|value| value.to_str().ok());
            words
                .flat_map(|value| value.split(','))
                .any(|one| one.trim().eq_ignore_ascii_case(word))
        };
        let is_kept = match response.version() {
            Version::HTTP_10 => has_word("keep-alive"),
            _ => !has_word("close"),
        };
        self.expected.store(!is_kept, Ordering::Relaxed);
    }

    /// True if it can take a request now; `None` once it is closed.
    pub(super) fn is_ready(&mut self) -> Option<bool> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.sender.poll_ready(&mut cx) {
            Poll::Ready(Ok(())) => Some(true),
            Poll::Ready(Err(_)) => None,
            Poll::Pending => Some(false),
        }
    }
}

/// True if the peer ended the connection, rather than answered with something else.
pub(super) fn is_closed(error: &hyper::Error) -> bool {
    let by_system = |error: &std::io::Error| {
        use std::io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
        };
        matches!(
            error.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
        )
    };
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_incomplete_message() || error.is_closed() || io.is_some_and(by_system)
}

/// A connection that was closed before it took a request.
pub(super) fn closed_unused() -> BoxError {
    "the connection was closed before it took the request".into()
}
