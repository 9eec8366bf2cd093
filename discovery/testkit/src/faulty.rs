//! An HTTP/2 server that fails at a given frame of an answer.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{Reason, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::net::TcpListener;

/// The fault of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The stream is refused before the call is processed.
    RefuseStream,
    /// The stream is reset after the response's headers.
    ResetAfterHeaders,
    /// The stream is reset in the middle of the message.
    ResetInMessage,
    /// The connection is closed in the middle of the message.
    CloseInMessage,
    /// The stream is refused and the connection sends GOAWAY.
    GoAway,
    /// Headers, then trailers with UNAVAILABLE.
    UnavailableInTrailers,
    /// An HTTP error, as a proxy answers it.
    Http503,
    /// A page that is not there, as a web server answers it.
    NotFoundPage,
    /// The response's headers, and no message after them.
    SilenceAfterHeaders,
    /// No answer.
    Silence,
}

/// A server on a real socket.
pub struct FaultyServer {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl FaultyServer {
    /// A server with this fault in every call.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub async fn start(fault: Fault) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Self {
            address: listener.local_addr()?,
            calls: Arc::default(),
        };
        let calls = Arc::clone(&server.calls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let calls = Arc::clone(&calls);
                tokio::spawn(async move {
                    // A client may disconnect at any time.
                    let _closed = connection(stream, fault, &calls).await;
                });
            }
        });
        Ok(server)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls received.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn connection(
    stream: tokio::net::TcpStream,
    fault: Fault,
    calls: &AtomicUsize,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    let (mut kept, mut kept_bodies) = (Vec::new(), Vec::new());
    while let Some(request) = connection.accept().await {
        let (_request, mut respond) = request?;
        calls.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::RefuseStream => respond.send_reset(Reason::REFUSED_STREAM),
            Fault::GoAway => {
                respond.send_reset(Reason::REFUSED_STREAM);
                connection.graceful_shutdown();
            }
            Fault::ResetAfterHeaders => {
                headers(&mut respond, 200)?.send_reset(Reason::INTERNAL_ERROR);
            }
            Fault::ResetInMessage => {
                let mut body = headers(&mut respond, 200)?;
                body.send_data(Bytes::from_static(&[0, 0, 0, 0, 4, 10, 2]), false)?;
                // Sends the first part before the reset can discard it.
                let flushed = std::future::poll_fn(|cx| connection.poll_closed(cx));
                let _still_open =
                    tokio::time::timeout(std::time::Duration::from_millis(20), flushed).await;
                body.send_reset(Reason::INTERNAL_ERROR);
            }
            Fault::CloseInMessage => {
                let mut body = headers(&mut respond, 200)?;
                body.send_data(Bytes::from_static(&[0, 0, 0, 0, 4, 10, 2]), false)?;
                let flushed = std::future::poll_fn(|cx| connection.poll_closed(cx));
                let _still_open =
                    tokio::time::timeout(std::time::Duration::from_millis(20), flushed).await;
                return Ok(());
            }
            Fault::UnavailableInTrailers => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", 14.into());
                headers(&mut respond, 200)?.send_trailers(trailers)?;
            }
            Fault::Http503 => {
                let mut body = headers(&mut respond, 503)?;
                body.send_data(Bytes::from_static(b"<html>"), true)?;
            }
            Fault::NotFoundPage => {
                let response = Response::builder()
                    .status(StatusCode::NOT_FOUND)
                    .header("content-type", "text/html")
                    .body(())
                    .unwrap_or_default();
                let page = Bytes::from_static(b"<html><body>Not found</body></html>");
                respond
                    .send_response(response, false)?
                    .send_data(page, true)?;
            }
            Fault::SilenceAfterHeaders => kept_bodies.push(headers(&mut respond, 200)?),
            Fault::Silence => kept.push(respond),
        }
    }
    Ok(())
}

fn headers(
    respond: &mut SendResponse<Bytes>,
    status: u16,
) -> Result<h2::SendStream<Bytes>, h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    respond.send_response(response, false)
}
