//! The protocol of the server at an address, by the first bytes of its answers to HTTP/2, TLS and HTTP/1.
//!
//! Each probe has a connection of its own and a time limit. No probe changes anything: the HTTP/1 request
//! is `GET /`.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use discovery::rustls::{
    self, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// The client's preface of HTTP/2 (RFC 9113, 3.4) and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of a SETTINGS frame, which is a server's first frame.
const SETTINGS: u8 = 4;
/// The content type of a TLS alert, and the first byte of its version.
const TLS_ALERT: [u8; 2] = [0x15, 3];
/// Longest answer that is read.
const LONGEST: usize = 4096;
/// Time limit of each probe for a server that sends nothing.
const PATIENCE: Duration = Duration::from_millis(700);

/// The protocol of the server at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProbeResult {
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP/1 without TLS, with the server's time.
    Http1 { date: Option<SystemTime> },
    /// TLS, with the protocol chosen by ALPN and the server's own certificate.
    Tls {
        alpn: Option<Vec<u8>>,
        certificate: Option<CertificateDer<'static>>,
    },
    /// Something else, with the first bytes of its answer.
    Other(Vec<u8>),
    /// It accepts connections and closes them, or sends nothing.
    Silent,
    /// Nothing listens.
    Refused,
    /// The name has no address.
    NoSuchHost(String),
    /// No connection for another reason.
    Unreachable(String),
}

impl ProbeResult {
    /// The peer in words, after "there is".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Http2 => "an HTTP/2 server without TLS, such as a gRPC server".to_owned(),
            Self::Http1 { .. } => "an HTTP/1 server without TLS".to_owned(),
            Self::Tls { alpn, .. } => match alpn.as_deref() {
                Some(b"h2") => "an HTTP/2 server with TLS".to_owned(),
                Some(b"http/1.1") => "an HTTP/1 server with TLS".to_owned(),
                _ => "a server with TLS".to_owned(),
            },
            Self::Other(bytes) => {
                let text: Vec<u8> = bytes.iter().copied().take(24).collect();
                format!(
                    "a server whose answer begins with \"{}\"",
                    text.escape_ascii()
                )
            }
            Self::Silent => "a server that accepts connections and does not answer".to_owned(),
            Self::Refused => "nothing".to_owned(),
            Self::NoSuchHost(error) | Self::Unreachable(error) => {
                format!("no connection ({error})")
            }
        }
    }
}

/// Finds the protocol of the server at `HOST:PORT`.
pub(super) async fn sniff(address: &str, limit: Duration) -> ProbeResult {
    let answer = match ask(address, HTTP2, limit).await {
        Ok(answer) => answer,
        Err(no_connection) => return no_connection,
    };
    let found = match recognize(&answer) {
        Some(found) if !matches!(found, ProbeResult::Tls { .. }) => return found,
        found => found,
    };
    if let Some(tls) = tls(address, limit).await {
        return tls;
    }
    match (found, http1(address, limit).await) {
        (Some(found), _) | (None, Some(found)) => found,
        (None, None) if answer.is_empty() => ProbeResult::Silent,
        (None, None) => ProbeResult::Other(answer),
    }
}

/// Asks over HTTP/1. `None` if the answer is not HTTP/1.
pub(super) async fn http1(address: &str, limit: Duration) -> Option<ProbeResult> {
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = ask(address, request.as_bytes(), limit).await.ok()?;
    recognize(&answer).filter(|found| matches!(found, ProbeResult::Http1 { .. }))
}

/// Sends bytes on a new connection. Returns the beginning of the answer, which is empty without one.
async fn ask(address: &str, question: &[u8], limit: Duration) -> Result<Vec<u8>, ProbeResult> {
    let mut stream = connect(address, limit).await?;
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(question).await?;
        // The head of an HTTP answer ends with an empty line; of others the first bytes suffice.
        while answer.len() < LONGEST
            && (answer.len() < 9 || answer.starts_with(b"HTTP/1"))
            && !answer.windows(4).any(|end| end == b"\r\n\r\n")
        {
            let mut part = [0; 1024];
            match stream.read(&mut part).await? {
                0 => break,
                count => answer.extend_from_slice(&part[..count]),
            }
        }
        io::Result::Ok(())
    };
    // Whatever was read before a failure counts.
    let _ended = timeout(limit.min(PATIENCE), exchange).await;
    Ok(answer)
}

async fn connect(address: &str, limit: Duration) -> Result<TcpStream, ProbeResult> {
    let late = || ProbeResult::Unreachable(format!("no answer within {limit:?}"));
    let resolved = timeout(limit, lookup_host(address)).await;
    let addresses: Vec<_> = match resolved.map_err(|_elapsed| late())? {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(ProbeResult::NoSuchHost(error.to_string())),
    };
    let connected = timeout(limit, TcpStream::connect(&*addresses)).await;
    connected
        .map_err(|_elapsed| late())?
        .map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => ProbeResult::Refused,
            _ => ProbeResult::Unreachable(error.to_string()),
        })
}

fn recognize(answer: &[u8]) -> Option<ProbeResult> {
    // The length of a SETTINGS frame is a multiple of six, and short.
    if answer.len() >= 9 && answer[0] == 0 && answer[3] == SETTINGS {
        Some(ProbeResult::Http2)
    } else if answer.starts_with(b"HTTP/1") {
        Some(ProbeResult::Http1 { date: date(answer) })
    } else if answer.starts_with(&TLS_ALERT) {
        Some(ProbeResult::Tls {
            alpn: None,
            certificate: None,
        })
    } else {
        None
    }
}

/// The header `Date` of an HTTP/1 answer.
fn date(answer: &[u8]) -> Option<SystemTime> {
    let text = String::from_utf8_lossy(answer);
    let dates = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date")
            .then(|| value.trim().to_owned())
    });
    let date = dates.into_iter().next()?;
    httpdate::parse_http_date(&date).ok()
}

/// Performs a TLS handshake with any certificate. `None` if the server does not use TLS.
async fn tls(address: &str, limit: Duration) -> Option<ProbeResult> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()?;
    let stream = connect(address, limit).await.ok()?;
    let connector = TlsConnector::from(Arc::new(config));
    match timeout(limit.min(PATIENCE), connector.connect(name, stream))
        .await
        .ok()?
    {
        Ok(stream) => {
            let (_, connection) = stream.get_ref();
            let certificates = connection.peer_certificates().unwrap_or_default();
            Some(ProbeResult::Tls {
                alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
                certificate: certificates.first().map(|first| first.clone().into_owned()),
            })
        }
        Err(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            let is_alert = matches!(inner, Some(rustls::Error::AlertReceived(_)));
            is_alert.then_some(ProbeResult::Tls {
                alpn: None,
                certificate: None,
            })
        }
    }
}

/// Accepts any certificate: nothing is sent over such a connection.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_recognized_by_their_first_bytes() {
        let http1 = b"HTTP/1.1 400 Bad\r\nDATE: Thu, 26 Nov 2026 00:53:07 GMT\r\n\r\n";
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_654_387);
        assert_eq!(
            recognize(http1),
            Some(ProbeResult::Http1 { date: Some(date) })
        );
        assert_eq!(recognize(&HTTP2[24..]), Some(ProbeResult::Http2));
        let alert = recognize(&[0x15, 3, 3, 0, 2, 2, 70]);
        assert!(matches!(alert, Some(ProbeResult::Tls { .. })));
        for other in [&b""[..], b"220 smtp", b"\0\0\0\x01\0\0\0\0\0"] {
            assert_eq!(recognize(other), None);
        }
    }
}
