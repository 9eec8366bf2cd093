//! TLS to a registry: the trusted authorities and the client certificate, from files.
//!
//! The rustls configuration has an explicit provider: rustls panics where it would have to choose one.

mod files;
mod verifiers;

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::ServerName,
};

use self::{
    files::{certificates, files_in, private_key},
    verifiers::{Certificate, Verifier},
};
use crate::provider::{NO_PROVIDER, provider};

/// The TLS settings of a registry's client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings<'a> {
    /// PEM file of the trusted authorities.
    pub(super) ca_file: Option<&'a Path>,
    /// Folder of such files, if there is no `ca_file`. Without both, the system's are trusted.
    pub(super) ca_path: Option<&'a Path>,
    /// The name of the setting that lists the authorities, for messages.
    pub(super) ca_setting: &'static str,
    /// PEM files of the client certificate and of its key.
    pub(super) identity: Option<(&'a Path, &'a Path)>,
    /// The name in the server's certificate. Default: the host of the connection.
    pub(super) server_name: Option<&'a str>,
    /// True if any certificate is accepted.
    pub(super) any_certificate: bool,
}

/// A configuration with these settings. Reads the files. Fails with the reason.
pub(super) fn client_config(settings: &Settings<'_>) -> Result<ClientConfig, String> {
    let provider = provider().ok_or(NO_PROVIDER)?;
    let verifier = verifier(settings, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match settings.identity {
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|e| format!("client certificate {}: {e}", certificate.display())),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The configuration of an HTTP client: with these settings, or for plain HTTP, which does not use it.
/// The client requires one.
#[cfg(any(feature = "consul", feature = "eureka"))]
pub(super) fn http_config(settings: Option<&Settings<'_>>) -> Result<ClientConfig, String> {
    if let Some(settings) = settings {
        let mut tls = client_config(settings)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        return Ok(tls);
    }
    let provider = provider().ok_or(NO_PROVIDER)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn verifier(
    settings: &Settings<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if settings.any_certificate {
        return Ok(Arc::new(Verifier {
            provider: provider.clone(),
            certificate: Certificate::Any,
        }));
    }
    let mut roots = RootCertStore::empty();
    let files = match (settings.ca_file, settings.ca_path) {
        (Some(file), _) => vec![file.to_owned()],
        (None, Some(folder)) => files_in(folder)?,
        (None, None) => Vec::new(),
    };
    for file in &files {
        for certificate in certificates(file)? {
            roots
                .add(certificate)
                .map_err(|e| format!("CA file {}: {e}", file.display()))?;
        }
    }
    if files.is_empty() {
        // A system store may contain certificates that rustls cannot read. The others are used.
        let system = rustls_native_certs::load_native_certs();
        if system.certs.is_empty() {
            return Err(format!(
                "the system has no trusted certificate authorities; set {}",
                settings.ca_setting
            ));
        }
        roots.add_parsable_certificates(system.certs);
    }
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| format!("CA certificates: {e}"))?;
    let Some(name) = settings.server_name else {
        return Ok(webpki);
    };
    let name = ServerName::try_from(name.to_owned())
        .map_err(|e| format!("TLS server name {name:?}: {e}"))?;
    Ok(Arc::new(Verifier {
        provider: provider.clone(),
        certificate: Certificate::Named { webpki, name },
    }))
}
