//! Certificates: the reason for a refused one, and the end of an accepted one's validity.

use std::{
    error::Error,
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use discovery::rustls::{
    self, AlertDescription, CertificateError,
    pki_types::{CertificateDer, UnixTime},
};
use x509_parser::{parse_x509_certificate, prelude::GeneralName};

use super::{Finding, clock, clock::Skew, finding::Weight, sniff::ProbeResult};
use crate::output::utc;

const STEP: &str = "certificate";
/// A certificate that expires sooner is a warning. Let's Encrypt's shortest certificates last six days.
const ENDS_SOON: Duration = Duration::from_secs(2 * 24 * 3600);

/// The error of rustls behind another error.
pub(super) fn cause(error: &(dyn Error + 'static)) -> Option<Arc<rustls::Error>> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(Arc::new(found.clone()));
        }
        // An I/O error gives the source of the error inside it, not that error itself.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The finding about a refused handshake. `None` if it is not about certificates.
pub(super) fn refused(
    step: &'static str,
    error: &rustls::Error,
    found: &ProbeResult,
    skew: Option<Skew>,
) -> Option<Finding> {
    let step = if step == "registry" { step } else { STEP };
    let broken =
        |cause, message: String, remedy: &str| Finding::broken(step, cause, message, remedy);
    let certificate = match error {
        rustls::Error::InvalidCertificate(error) => error,
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => {
            return Some(broken(
                "client_certificate",
                format!("the server refuses this client: {error}"),
                "give a client certificate that the server trusts: --tls-cert and --tls-key for \
                 instances, the registry's own variables for a registry",
            ));
        }
        _ => return None,
    };
    let own = match found {
        ProbeResult::Tls {
            certificate: Some(own),
            ..
        } => Validity::of(own),
        _ => None,
    };
    let now = SystemTime::now();
    Some(match certificate {
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let given = match certificate {
                CertificateError::NotValidYetContext { not_before, .. } => Some(time(*not_before)),
                _ => own.as_ref().map(|own| own.begin),
            };
            let until = given.and_then(|begin| begin.duration_since(now).ok());
            let from = given.map_or_else(|| "a later time".to_owned(), utc);
            let wait = until.map_or_else(String::new, |wait| {
                format!(", {} earlier", clock::about(wait))
            });
            broken(
                "certificate_not_yet_valid",
                format!(
                    "the certificate is not yet valid: it begins at {from}, and this machine's clock \
                     says {}{wait}{}",
                    utc(now),
                    hint(skew)
                ),
                "compare the clocks of this machine and of the issuer with `date -u` and synchronise \
                 them (NTP); if this one is right, issue the certificate again with an earlier start",
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let given = match certificate {
                CertificateError::ExpiredContext { not_after, .. } => Some(time(*not_after)),
                _ => own.as_ref().map(|own| own.end),
            };
            let end = given.map_or_else(|| "an earlier time".to_owned(), utc);
            broken(
                "certificate_expired",
                format!(
                    "the certificate expired at {end}, and this machine's clock says {}{}",
                    utc(now),
                    hint(skew)
                ),
                "renew the certificate and let the server load it; if it should still be valid, check \
                 this machine's clock with `date -u`",
            )
        }
        // A bad signature: an authority of the issuer's name is trusted, which has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => broken(
            "certificate_unknown_issuer",
            match own.map(|own| own.issuer) {
                Some(issuer) => format!("the certificate's issuer is not trusted: {issuer}"),
                None => "the certificate's issuer is not trusted".to_owned(),
            },
            "name the file of its certificate authority: --tls-ca for instances, the registry's own \
             variable for a registry (CONSUL_CACERT, ETCDCTL_CACERT)",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = own.map_or_else(Vec::new, |own| own.names);
            let names = if names.is_empty() {
                "no name".to_owned()
            } else {
                names.join(", ")
            };
            broken(
                "certificate_wrong_name",
                format!("{certificate}; the certificate is for {names}"),
                "name one of the certificate's names with --tls-domain (for Consul: \
                 CONSUL_TLS_SERVER_NAME), or issue it for the address that the registry lists",
            )
        }
        other => broken(
            "certificate_refused",
            format!("the certificate cannot be used: {other}"),
            "issue the server's certificate again",
        ),
    })
}

fn hint(skew: Option<Skew>) -> String {
    skew.map_or_else(String::new, |skew| format!("; {}", skew.hint()))
}

fn time(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// The finding about a certificate that was accepted.
pub(super) fn accepted(certificate: &CertificateDer<'_>) -> Finding {
    let Some(own) = Validity::of(certificate) else {
        return Finding::ok(STEP, "accepted");
    };
    let names = own.names.join(", ");
    let message = format!("for {names}, valid until {}", utc(own.end));
    match own.end.duration_since(SystemTime::now()) {
        Ok(left) if left < ENDS_SOON => Finding::new(
            STEP,
            Weight::Warning,
            "certificate_ends_soon",
            format!("{message}: for another {}", clock::about(left)),
            "renew the certificate and let the server load it",
        ),
        _ => Finding::ok(STEP, message),
    }
}

/// The contents of a certificate.
#[derive(Debug)]
struct Validity {
    begin: SystemTime,
    end: SystemTime,
    issuer: String,
    names: Vec<String>,
}

impl Validity {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let at = |seconds: i64| {
            let seconds = u64::try_from(seconds).unwrap_or_default();
            UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let extension = parsed.subject_alternative_name().ok().flatten();
        let names = extension
            .iter()
            .flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => ip(bytes),
            _ => None,
        });
        Some(Self {
            begin: at(parsed.validity().not_before.timestamp()),
            end: at(parsed.validity().not_after.timestamp()),
            issuer: parsed.issuer().to_string(),
            names: names.collect(),
        })
    }
}

fn ip(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
    let v6 =
        || <[u8; 16]>::try_from(bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string());
    v4.or_else(|_| v6()).ok()
}
