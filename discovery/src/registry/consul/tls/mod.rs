//! TLS to Consul: the trusted authorities and the client certificate.
//!
//! The rustls configuration has an explicit provider: rustls panics where it would have to choose one.

mod files;
mod verifiers;

use std::sync::Arc;

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
use super::config::Config;
use crate::{
    provider::{NO_PROVIDER, provider},
    registry::RegistryError,
};

pub(super) fn client_config(config: &Config) -> Result<ClientConfig, RegistryError> {
    let wrong = |reason| RegistryError::InvalidSetting {
        registry: config.name(),
        reason,
    };
    let provider = provider().ok_or_else(|| wrong(NO_PROVIDER.to_owned()))?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?;
    if !config.tls {
        // The HTTP client requires a configuration, which plain HTTP does not use.
        return Ok(builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth());
    }
    let verifier = verifier(config, &provider).map_err(wrong)?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut tls = match (&config.client_cert, &config.client_key) {
        (Some(cert), Some(key)) => {
            let unusable = |e| wrong(format!("client certificate {}: {e}", cert.display()));
            let chain = certificates(cert).map_err(wrong)?;
            let key = private_key(key).map_err(wrong)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(unusable)?
        }
        _ => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn verifier(
    config: &Config,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if !config.tls_verify {
        return Ok(Arc::new(Verifier {
            provider: provider.clone(),
            certificate: Certificate::Any,
        }));
    }
    let mut roots = RootCertStore::empty();
    let files = match (&config.ca_file, &config.ca_path) {
        (Some(file), _) => vec![file.clone()],
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
            return Err(
                "the system has no trusted certificate authorities; set CONSUL_CACERT".to_owned(),
            );
        }
        roots.add_parsable_certificates(system.certs);
    }
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| format!("CA certificates: {e}"))?;
    let Some(name) = &config.tls_server_name else {
        return Ok(webpki);
    };
    let name =
        ServerName::try_from(name.clone()).map_err(|e| format!("TLS server name {name:?}: {e}"))?;
    Ok(Arc::new(Verifier {
        provider: provider.clone(),
        certificate: Certificate::Named { webpki, name },
    }))
}
