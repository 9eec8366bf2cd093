//! The server's part of a TLS handshake.

use std::{
    error::Error, future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use rustls::{AlertDescription, CertificateError, Error as TlsError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::server::Acceptor;
use crate::{activity::Activity, serve::Protocol, thinned::Thinned, transport::Transport};

/// The first byte of a TLS record with a handshake (RFC 8446, section 5.1).
pub(crate) const HANDSHAKE: u8 = 0x16;
/// A fatal alert `unexpected_message`, as TLS servers answer what is not TLS.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];
/// The answer to HTTP/1 without TLS.
const BODY: &str = "{\"err\":\"this port expects TLS; use https\"}\n";
/// Reads of at most 4 KiB before a refused connection is closed.
const MAX_READS: u32 = 16;
/// Longest wait for the client to take the last answer.
const ANSWER: Duration = Duration::from_secs(1);

static PLAIN: Thinned = Thinned::new();
static REFUSED: Thinned = Thinned::new();

/// Performs the handshake within the time limit. While the client is waited for, its connection may be
/// closed to make room for another one. `None` if there is no connection; the log says why.
pub(crate) async fn accept(
    acceptor: &Acceptor,
    stream: TcpStream,
    peer: SocketAddr,
    protocol: Protocol,
    activity: &Arc<Activity>,
    limit: Duration,
) -> Option<Transport> {
    let by = Instant::now() + limit;
    let mut handshake = pin!(handshake(acceptor, stream, protocol));
    let watched = poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        if polled.is_pending() {
            activity.waits();
        }
        polled
    });
    let failed = match timeout_at(by, watched).await {
        Ok(Ok(transport)) => return Some(transport),
        Ok(Err(failed)) => failed,
        Err(_) => Failed::Silent(format!("not complete within {limit:?}")),
    };
    match failed {
        // Usual: port checks connect and send nothing.
        Failed::Silent(reason) => debug!(client = %peer, "TLS handshake: {reason}"),
        Failed::NotTls => {
            if let Some(suppressed) = PLAIN.line() {
                warn!(
                    client = %peer.ip(),
                    suppressed,
                    "connection refused: the client does not use TLS, which this port expects"
                );
            }
        }
        Failed::Refused(error) => {
            if let Some(suppressed) = REFUSED.line() {
                let reason = explain(&error);
                warn!(
                    client = %peer.ip(),
                    suppressed,
                    "TLS handshake failed: {reason}{error}"
                );
            }
        }
    }
    None
}

/// A handshake that failed.
enum Failed {
    /// The client has gone, or has not begun.
    Silent(String),
    /// The client does not use TLS. It was sent an answer that says so.
    NotTls,
    Refused(io::Error),
}

async fn handshake(
    acceptor: &Acceptor,
    stream: TcpStream,
    protocol: Protocol,
) -> Result<Transport, Failed> {
    let silent = |error: io::Error| Failed::Silent(error.to_string());
    let mut first = [0; 4];
    match stream.peek(&mut first).await.map_err(silent)? {
        0 => return Err(Failed::Silent("closed before the first byte".to_owned())),
        _ if first[0] == HANDSHAKE => {}
        _ => {
            refuse_plain(stream, first, protocol).await;
            return Err(Failed::NotTls);
        }
    }
    let accepting = TlsAcceptor::from(acceptor.config(protocol)).accept(stream);
    match accepting.into_fallible().await {
        Ok(stream) => Ok(Transport::Tls(Box::new(stream))),
        Err((error, stream)) if error.kind() == io::ErrorKind::InvalidData => {
            linger(stream).await;
            Err(Failed::Refused(error))
        }
        Err((error, _)) => Err(silent(error)),
    }
}

/// Closes a connection so that the client receives what was sent last. With TLS 1.3 it may have sent its
/// first request by now, and bytes that are not read make the kernel reset the connection.
async fn linger(mut stream: TcpStream) {
    let closing = async {
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        for _ in 0..MAX_READS {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // The connection ends in any case.
    let _closed = timeout_at(Instant::now() + ANSWER, closing).await;
}

/// Answers a client without TLS in the protocol that it seems to use.
async fn refuse_plain(mut stream: TcpStream, first: [u8; 4], protocol: Protocol) {
    let http1 = protocol == Protocol::Http && first[0].is_ascii_uppercase() && first != *b"PRI ";
    let answer = if http1 {
        let head =
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close";
        let length = BODY.len();
        format!("{head}\r\ncontent-length: {length}\r\n\r\n{BODY}").into_bytes()
    } else {
        ALERT.to_vec()
    };
    let by = Instant::now() + ANSWER;
    if let Ok(Ok(())) = timeout_at(by, stream.write_all(&answer)).await {
        linger(stream).await;
    }
}

/// The cause in words of the settings, in front of rustls's own text.
fn explain(error: &io::Error) -> &'static str {
    let source = error
        .get_ref()
        .map(|source| source as &(dyn Error + 'static));
    match source.and_then(|source| source.downcast_ref::<TlsError>()) {
        Some(TlsError::NoCertificatesPresented) => {
            "the client has no certificate, and --tls-client-auth requires one: "
        }
        Some(TlsError::InvalidCertificate(reason)) => match reason {
            // Another authority of the same name makes the signature a bad one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the client's certificate is not signed by an authority of --tls-client-ca: "
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the client's certificate has expired: "
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the client's certificate is not valid yet: "
            }
            _ => "the client's certificate cannot be used: ",
        },
        Some(TlsError::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::DecryptError,
        )) => "the client does not accept this server's certificate: ",
        _ => "",
    }
}
