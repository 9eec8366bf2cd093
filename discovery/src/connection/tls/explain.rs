//! The cause of a failed TLS handshake in words of its settings. rustls's own text names the rule that was
//! broken, which stands after it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, pki_types::ServerName};

use super::super::ConnectError;
use crate::BoxError;

const NOT_TLS: &str = "the answer is not TLS; does the server expect connections without TLS?";
const CLOSED: &str = "the server closed the connection in the TLS handshake; does it expect connections without TLS?";

/// An error with its cause in other words.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
struct Explained {
    cause: String,
    source: BoxError,
}

/// The error of a handshake with a server that was expected to have this name.
pub(super) fn handshake(error: io::Error, name: &ServerName<'_>) -> ConnectError {
    let cause = match rustls_error(&error) {
        Some(Error::InvalidCertificate(reason)) => certificate(reason, name),
        Some(Error::InvalidMessage(_)) => Some(NOT_TLS.to_owned()),
        Some(Error::AlertReceived(alert)) => refusal(*alert).map(str::to_owned),
        Some(_) => None,
        None => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        )
        .then(|| CLOSED.to_owned()),
    };
    ConnectError::Handshake(match cause {
        Some(cause) => with_cause(cause, error),
        None => error.into(),
    })
}

/// The error of the first bytes after a handshake. With TLS 1.3, the server's refusal of this client's
/// certificate arrives there.
pub(in crate::connection) fn first_bytes(error: ConnectError) -> ConnectError {
    let ConnectError::Handshake(source) = error else {
        return error;
    };
    let alert = source.downcast_ref::<io::Error>().and_then(rustls_error);
    let cause = match alert {
        Some(Error::AlertReceived(alert)) => refusal(*alert),
        _ => None,
    };
    ConnectError::Handshake(match cause {
        Some(cause) => with_cause(cause.to_owned(), source),
        None => source,
    })
}

fn with_cause(cause: String, source: impl Into<BoxError>) -> BoxError {
    let source = source.into();
    Explained { cause, source }.into()
}

fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The reason why the server's certificate is not accepted.
fn certificate(reason: &CertificateError, name: &ServerName<'_>) -> Option<String> {
    use CertificateError as Reason;
    Some(match reason {
        // Another authority of the same name makes the signature a bad one.
        Reason::UnknownIssuer | Reason::BadSignature => {
            "the server's certificate is not signed by a trusted authority".to_owned()
        }
        Reason::Expired | Reason::ExpiredContext { .. } => {
            "the server's certificate has expired".to_owned()
        }
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet".to_owned()
        }
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => {
            format!("the server's certificate is not for {:?}", name.to_str())
        }
        _ => return None,
    })
}

/// The reason why the server does not accept this client.
fn refusal(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as Alert;
    Some(match alert {
        Alert::CertificateRequired => "the server requires a client certificate",
        Alert::UnknownCA => "the server does not trust the authority of this client's certificate",
        Alert::CertificateExpired => "the server says that this client's certificate has expired",
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::AccessDenied
        | Alert::DecryptError => "the server does not accept this client's certificate",
        Alert::NoApplicationProtocol => "the server does not speak HTTP/2",
        _ => return None,
    })
}
